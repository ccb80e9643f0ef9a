"""Read the names of tensors: words, numbers, which parameter of a module it is, and the part that it plays there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal

from msgspec import Struct

from ckptfix.inference.lexicon import GENERIC, concept, is_purpose, likeness

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_SCOPES = {"encoder", "decoder", "visual", "text"}
"""Purposes that whole models have: they count only where nothing nearer is said."""

ParamKind = Literal["weight", "bias", "mean", "variance", "count", ""]

_KINDS: dict[str, ParamKind] = {"scale": "weight", "bias": "bias", "mean": "mean", "variance": "variance"}
_PLAIN = {"weight", "bias", "gamma", "beta", "kernel", "scale", "offset", "shift", "w", "b", "g"}
_JOINED = {
    ("running", "mean"): "runningmean",
    ("running", "var"): "runningvar",
    ("moving", "mean"): "movingmean",
    ("moving", "variance"): "movingvariance",
    ("moving", "var"): "movingvar",
    ("layer", "norm"): "layernorm",
    ("layer", "scale"): "layerscale",
    ("batch", "norm"): "batchnorm",
    ("in", "proj"): "inproj",
    ("feed", "forward"): "feedforward",
    ("logit", "scale"): "logitscale",
    ("token", "type"): "tokentype",
    ("c", "attn"): "inproj",
    ("query", "key", "value"): "querykeyvalue",
}
"""Words that mean something together."""


class Name(Struct, frozen=True):
    """A key, or the part of one that follows its block, taken apart.

    `module` are the words and numbers without the parameter's own word, `kind` is which parameter it is.
    """

    text: str
    words: tuple[str, ...]
    numbers: tuple[int, ...]
    kind: ParamKind
    parent: str

    @property
    def telling(self) -> tuple[str, ...]:
        """The words that say something of what the tensor is."""
        return tuple(word for word in self.words if word not in GENERIC)


@cache
def read_name(text: str) -> Name:
    """Take a name apart."""
    words = join_words(words_of(text))
    numbers = tuple(int(token) for token in _WORD.findall(text) if token.isdigit())
    kind: ParamKind = ""
    parent = parent_of(text)
    if "num" in words and "tracked" in words:
        kind = "count"
    elif words:
        last = words[-1]
        if last in _PLAIN or concept(last) in ("mean", "variance"):
            kind = _KINDS.get(concept(last), "")
    if kind:
        cut = max(text.rfind("."), text.rfind("/"), text.rfind("_") if kind in ("weight", "bias") else -1)
        parent = text[: max(cut, 0)]
        words = words[:-1] if kind != "count" else words[:-3]
    return Name(text, tuple(words), numbers, kind, parent)


def words_of(text: str) -> list[str]:
    """Give the words of a text in lower case, without its numbers."""
    return [token.lower() for token in _WORD.findall(text) if not token.isdigit()]


def parent_of(path: str) -> str:
    """Give the path of the module around a key or a module; nothing where there is none."""
    return path[: max(path.rfind("."), path.rfind("/"), 0)]


def tail(key: str, count: int) -> list[str]:
    """Give the last segments of a key."""
    return key.split(".")[-count:]


def join_words(words: Iterable[str]) -> list[str]:
    """Put words together that mean something only together."""
    joined: list[str] = []
    rest = list(words)
    while rest:
        for length in (3, 2):
            whole = _JOINED.get(tuple(rest[:length]))
            if whole is not None:
                joined.append(whole)
                rest = rest[length:]
                break
        else:
            joined.append(rest.pop(0))
    return joined


def similarity(one: tuple[str, ...], other: tuple[str, ...], weights: dict[str, float]) -> float:
    """Tell how alike two lists of words are, 0 to 1: a cosine over words, each with its weight, rare ones the most."""
    if not one or not other:
        return 0.0
    gained = 0.0
    free = list(other)
    for word in one:
        best = max(free, key=lambda candidate: likeness(word, candidate), default=None)
        if best is not None and (alike := likeness(word, best)) > 0:
            gained += alike * min(weights.get(word, 1.0), weights.get(best, 1.0))
            free.remove(best)
    total = sum(weights.get(word, 1.0) for word in one) * sum(weights.get(word, 1.0) for word in other)
    return min(1.0, gained / total**0.5) if total else 0.0


def kinds_agree(one: Name, other: Name) -> bool:
    """Tell whether two tensors may be the same parameter of a module; one that is not named may be any."""
    return (
        one.kind == other.kind
        or (not one.kind and other.kind in ("weight", "bias"))
        or (not other.kind and one.kind in ("weight", "bias"))
    )


def conflict(one: Name, other: Name) -> float:
    """Tell names apart that both say something, and nothing alike: 1 where they disagree wholly."""
    sides = [[word for word in name.words if is_purpose(word)] for name in (one, other)]
    first, second = ([word for word in side if concept(word) not in _SCOPES] or side for side in sides)
    if not first or not second:
        return 0.0
    return 0.0 if any(likeness(a, b) > 0 for a in first for b in second) else 1.0
