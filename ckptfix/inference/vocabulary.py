"""The tables of a vocabulary, and how many tokens each side has."""

from __future__ import annotations

from ckptfix.inference.lexicon import concept
from ckptfix.inference.names import read_name, tail
from ckptfix.tensors import Manifest, TensorSpec


def find_vocabularies(have: Manifest, want: Manifest) -> tuple[int, int] | None:
    """Give the numbers of tokens of both sides, where they differ."""
    tables = [key for key, spec in want.items() if is_token_table(key, spec, want.owners.get(key, ""))]
    found: set[tuple[int, int]] = set()
    for key, spec in have.items():
        alike = [table for table in tables if tail(table, 2) == tail(key, 2) or is_token_table(key, spec)]
        found |= {(spec.shape[0], want[table].shape[0]) for table in alike if want[table].shape[1:] == spec.shape[1:]}
    differing = {pair for pair in found if pair[0] != pair[1]}
    return differing.pop() if len(differing) == 1 else None


def is_token_table(key: str, spec: TensorSpec, owner: str = "") -> bool:
    """Tell whether a tensor is the table of a vocabulary, [tokens, width]."""
    meant = set(map(concept, read_name(key).words))
    named = {"token", "embed"} <= meant or "wte" in read_name(key).words or owner == "Embedding"
    return len(spec.shape) == 2 and named and not meant & {"position", "segment"}
