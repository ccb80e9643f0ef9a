"""Choose the lines that together cover all links at the least price."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from ckptfix.inference.generalise.line import Line, bits_of

Check = Callable[[Line], int]
"""Gives the links that a line makes as they should be, and 0 where it does anything else."""
Price = Callable[[Line], float]


def cover(lines: Iterable[Line], wanted: int, check: Check, price: Price) -> list[Line]:
    """Choose lines greedily, those that cost the least for each link; then leave out what others cover too.

    Each chosen line covers what `check` says of it. Links that no line covers are left.
    """
    heap = [(price(line) / line.covers.bit_count(), place, line) for place, line in enumerate(lines)]
    heapq.heapify(heap)
    chosen: list[Line] = []
    left = wanted
    while heap and left:
        _, place, line = heapq.heappop(heap)
        gain = (line.covers & left).bit_count()
        if not gain:
            continue
        ratio = price(line) / gain
        if heap and ratio > heap[0][0]:
            heapq.heappush(heap, (ratio, place, line))
            continue
        covered = check(line)
        if covered:
            chosen.append(Line(line.patterns, line.templates, covered))
            left &= ~covered
    return _without_redundant(chosen, wanted, price)


def _without_redundant(chosen: Sequence[Line], wanted: int, price: Price) -> list[Line]:
    counts: dict[int, int] = {}
    for line in chosen:
        for bit in bits_of(line.covers & wanted):
            counts[bit] = counts.get(bit, 0) + 1
    kept = list(chosen)
    for line in sorted(chosen, key=price, reverse=True):
        bits = list(bits_of(line.covers & wanted))
        if all(counts[bit] > 1 for bit in bits):
            kept.remove(line)
            for bit in bits:
                counts[bit] -= 1
    return kept
