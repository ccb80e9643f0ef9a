"""Output heads that one side has for one task, and the other side for another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from ckptfix.inference.lexicon import concept, likeness
from ckptfix.inference.link import Link, Open
from ckptfix.inference.names import read_name
from ckptfix.tensors import Manifest

_LEAST_KEPT = 0.5
"""Of all tensors, what keeps its name, for words to mean the same on both sides."""
_PLAIN = {"classifier", "class", "linear", "out", "embed", "final", "project", "conv", "after", "mlp"}
"""What any head may be called."""


def find_exchanged(links: Iterable[Link], want: Manifest) -> dict[str, Open]:
    """Find heads that would become those of another task, though the rest keeps its names: target key to reason.

    `gender.weight` has the shape of `smile.weight`, and is not what it should start from.
    """
    pairs = [link.pair for link in links if link.pair]
    kept = sum(f".{source}".endswith(f".{target}") for source, target in pairs)
    if kept < _LEAST_KEPT * len(pairs):
        return {}
    found: dict[str, Open] = {}
    for source, target in pairs:
        (_, one), (before, other) = _unlike(source, target), _unlike(target, source)
        is_repeated = any(part.isdigit() for part in before.split("."))  # no head is in each of several blocks
        if not is_repeated and _are_unlike(one, other) and _is_output(f"{before}{other}.", want):
            found[target] = Open(f"'{one}' and '{other}' may be heads of different tasks, of one shape by chance")
    return found


def _unlike(key: str, other: str) -> tuple[str, str]:
    """Give the modules that two keys begin with alike, and those of the first that follow and are unlike."""
    one, two = key.split("."), other.split(".")
    start = _count_alike(one, two)
    end = _count_alike(one[start:][::-1], two[start:][::-1])
    return "".join(f"{part}." for part in one[:start]), ".".join(one[start : len(one) - end])


def _count_alike(one: Sequence[str], other: Sequence[str]) -> int:
    """Count what two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _are_unlike(one: str, other: str) -> bool:
    """Tell whether one of them says what it is for, and the other does not say the same."""
    words, others = ([word for word in read_name(path).telling if concept(word) not in _PLAIN] for path in (one, other))
    return bool(words or others) and not any(likeness(word, like) for word in words for like in others)


def _is_output(module: str, want: Manifest) -> bool:
    """Tell whether nothing that is defined next takes what a module gives."""
    inside = [key for key in want if key.startswith(module)]
    weights = [want[key].shape for key in inside if len(want[key].shape) > 1]
    if not weights or any(want.owners.get(key) == "Embedding" for key in inside):
        return False
    keys = list(want)
    following = [want[key].shape for key in keys[keys.index(inside[-1]) + 1 :]]
    taken = next((shape[1 if len(shape) > 1 else 0] for shape in following if shape), None)
    return taken != weights[-1][0]
