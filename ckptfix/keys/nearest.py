"""The keys that a user may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from heapq import nlargest

_CANDIDATES = 200
_LEAST = 0.5


def nearest_keys(wanted: str, keys: Iterable[str], limit: int = 3) -> list[str]:
    """List the keys that read most like `wanted`, best first."""
    return list(nearest_to_each([wanted], keys, limit)[wanted])


def nearest_to_each(wanted: Iterable[str], keys: Iterable[str], limit: int = 3) -> dict[str, tuple[str, ...]]:
    """Give the nearest keys of each wanted one.

    Only the keys that share the most segments are compared letter by letter, so that a long list costs little.
    """
    split = [(key, key.split(".")) for key in keys]
    return {text: _nearest(text, split, limit) for text in wanted}


def _nearest(wanted: str, split: list[tuple[str, list[str]]], limit: int) -> tuple[str, ...]:
    segments = set(wanted.split("."))
    candidates = nlargest(_CANDIDATES, split, key=lambda pair: len(segments.intersection(pair[1])))
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    scored: list[tuple[float, str]] = []
    for key, _ in candidates:
        matcher.set_seq1(key)
        if min(matcher.real_quick_ratio(), matcher.quick_ratio()) > _LEAST and (ratio := matcher.ratio()) > _LEAST:
            scored.append((-ratio, key))
    return tuple(key for _, key in sorted(scored)[:limit])
