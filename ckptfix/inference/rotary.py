"""Rotary positions: the rows of queries and keys come in one of two orders, which no shape shows.

A head's pairs of rows lie half a head apart in transformers, and beside each other in Meta's own code and in
torchtune's plain Llama. Between the two orders the rows must be permuted, head by head.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from ckptfix.inference.lexicon import concept
from ckptfix.inference.names import read_name
from ckptfix.tensors import Manifest

Order = Literal["halves", "neighbours"]

TURN: dict[tuple[Order | None, Order | None], str] = {
    ("halves", "neighbours"): "(h two d) ... -> (h d two) ...",
    ("neighbours", "halves"): "(h d two) ... -> (h two d) ...",
}
"""The layouts between the orders; `h` is the number of heads, `two` is 2."""

_NEIGHBOURS = re.compile(r"^(RotaryPositionalEmbeddings|Complex\w*)\(")
_HALVES = re.compile(r"^(\w*RotaryEmbedding|\w+RotaryPositionalEmbeddings)\(")
_NAMED = re.compile(r"^\w*(Rotary|Rope)\w*\(", re.IGNORECASE)


def is_rotary(have: Manifest, want: Manifest) -> bool:
    """Tell whether positions are rotary: a module says so, or a language model has no other positions."""
    if any(_NAMED.match(text) for text in want.modules.values()):
        return True
    words = [{concept(word) for word in read_name(key).words} for key in (*have, *want)]
    if any("freqs" in found or {"inv", "freq"} <= found for found in words):
        return True
    positioned = any(found & {"position", "relative"} for found in words)
    speaks = any({"token", "embed"} <= found for found in words)
    biased = any(
        "norm" in {concept(word) for word in read_name(key).words} and read_name(key).kind == "bias" for key in want
    )
    return speaks and not positioned and not biased


def target_order(want: Manifest) -> Order | None:
    """Tell the order of the architecture by the class of its rotary module; None where it is not a known one."""
    classes = [text for text in want.modules.values() if _NAMED.match(text)]
    if not classes:
        return None
    if all(map(_NEIGHBOURS.match, classes)):
        return "neighbours"
    return "halves" if all(map(_HALVES.match, classes)) else None


def source_order(keys: Iterable[str]) -> Order | None:
    """Tell the order of a file by what it calls queries; None where more than one library does."""
    words = {word for key in keys for word in re.split(r"[._/]", key)}
    if {"wq", "wk"} <= words:
        return "neighbours"
    if {"self", "attn", "q", "proj"} <= words or {"attention", "self", "query"} <= words or {"qkv", "proj"} <= words:
        return "halves"
    return None
