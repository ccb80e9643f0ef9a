"""Names that are numbers and nothing else: `w0`, `w1`, ... There the order is all there is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckptfix.inference.link import Link
from ckptfix.tensors import Manifest, TensorSpec

_NUMBER = re.compile(r"[0-9]+")


def match_numbered(have: Manifest, want: Manifest) -> list[Link] | None:
    """Pair the n-th tensor with the n-th, where every shape along the whole of both models agrees. None otherwise."""
    ordered = _by_number(have)
    if ordered is None or len(ordered) != len(want):
        return None
    pairs = list(zip(ordered, want, strict=True))
    if any(have[source].shape != want[target].shape for source, target in pairs):
        return None
    why = f"numbered in order, and all {len(pairs)} shapes agree"
    return [
        Link.rename(source, target, confidence=0.9, why=why, evidence=frozenset({"order", "shapes"}))
        for source, target in pairs
    ]


def _by_number(tensors: Mapping[str, TensorSpec]) -> list[str] | None:
    """Sort keys that differ by one number alone; None where they have more to say."""
    numbers: dict[int, str] = {}
    templates: set[str] = set()
    for key in tensors:
        found = _NUMBER.findall(key)
        if len(found) != 1 or "." in key or "/" in key:
            return None
        numbers[int(found[0])] = key
        templates.add(_NUMBER.sub("#", key))
    return [numbers[number] for number in sorted(numbers)] if len(templates) == 1 else None
