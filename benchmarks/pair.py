"""A pair: a source, a target, and what every target tensor is made of; written as the files that a user would have."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ckptfix.tensors import DType

_LETTERS = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Pair:
    """`source` holds the values in the order of the checkpoint, `target` and `truth` are the pair's documents."""

    name: str
    source: Mapping[str, Tensor]
    target: Mapping[str, Any]
    truth: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, list[Any]]:
        """Give `{key: [shape, dtype]}` of the source, as the pair's own tools want it."""
        return {key: [list(value.shape), str(value.dtype)] for key, value in self.source.items()}

    def sorted(self) -> Pair:
        """Give the pair with the source's keys in lexicographic order."""
        return replace(self, source=dict(sorted(self.source.items())))


def load_pair(folder: Path) -> Pair:
    """Read a pair; a source without values gets random ones."""
    keys, target, truth = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("source.json", "target.json", "truth.json")
    )
    values = folder / "source.safetensors"
    stored = load_file(values) if values.exists() else {}
    twins = {key: group[0] for group in truth.get("tied_sources", ()) for key in group}
    source = {
        key: stored[key] if key in stored else random_values(twins.get(key, key), shape, getattr(torch, dtype))
        for key, (shape, dtype) in keys["keys"].items()
    }
    return Pair(folder.name, source, target, truth)


def random_values(key: str, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Draw values that a trained tensor of this name could have: scales near 1, variances positive."""
    generator = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))
    if not dtype.is_floating_point:
        return torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator).to(dtype)
    if "var" in key.rpartition(".")[2]:
        return (0.5 + torch.rand(shape, generator=generator)).to(dtype)
    numbers = torch.randn(shape, generator=generator)
    is_scale = len(shape) == 1 and key.endswith(("weight", "gamma", "scale"))
    return (1 + 0.1 * numbers if is_scale else 0.05 * numbers).to(dtype)


def blinded(pair: Pair, seed: int) -> Pair:
    """Replace every word in the source's keys by a word that neither side has; numbers and separators stay."""
    known = {word.lower() for key in (*pair.source, *pair.target["keys"]) for word in _LETTERS.findall(key)}
    words = sorted({word for key in pair.source for word in _LETTERS.findall(key)})
    chance = random.Random(seed)  # noqa: S311  no secret
    other: dict[str, str] = {}
    for word in words:
        other[word] = _new_word(chance, known)
        known.add(other[word])

    def rename(key: str) -> str:
        return _LETTERS.sub(lambda found: other.get(found[0], found[0]), key)

    return replace(
        pair,
        source={rename(key): value for key, value in pair.source.items()},
        truth=rename_truth(pair.truth, rename),
    )


def _new_word(chance: random.Random, known: set[str]) -> str:
    while True:
        word = "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(chance.randint(2, 4)))
        if word not in known:
            return word


def rename_truth(truth: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """Give the same truth about a source with other keys."""

    def expression(value: Any) -> Any:  # an expression nests as deep as it likes
        if isinstance(value, str):
            return rename(value)
        return {**value, "from": [expression(part) for part in value.get("from", ())]}

    def variant(value: Any) -> Any:  # an expression, or two prefixes
        return [rename(prefix) for prefix in value] if isinstance(value, list) else expression(value)

    return {
        **truth,
        "targets": {key: expression(value) for key, value in truth["targets"].items()},
        "unused_sources": [rename(key) for key in truth.get("unused_sources", ())],
        "tied_sources": [[rename(key) for key in group] for group in truth.get("tied_sources", ())],
        "also": {key: [variant(value) for value in values] for key, values in truth.get("also", {}).items()},
    }


def write_source(pair: Pair, path: Path) -> Path:
    """Write the source: a `.pth` keeps the order of its keys, a `.safetensors` sorts them."""
    if path.suffix == ".pth":
        torch.save(dict(pair.source), path)
    else:
        save_file({key: value.contiguous().clone() for key, value in sorted(pair.source.items())}, path)
    return path


def write_target(pair: Pair, path: Path) -> Path:
    """Write the target as a lockfile of shapes."""
    tensors = {
        key: {"shape": shape, "dtype": DType.from_text(dtype), "module": owner, "kind": kind}
        for key, (shape, dtype, owner, kind) in pair.target["keys"].items()
    }
    modules = {path: f"{owner}({extra})" for path, (owner, extra) in pair.target.get("modules", {}).items()}
    document = {"schema_version": 1, "tensors": tensors, "modules": modules}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
