"""Numbered lists of layers that both sides have, where layers were put in or taken out, and the numbers moved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ckptfix.inference.slots import Slot
from ckptfix.tensors import Shape

_NUMBER = re.compile(r"(?:(?<=\.)|^)([0-9]+)\.")
_LEAST_ALIKE = 0.6
"""Of the layers of the shorter list, what must have a like in the other, in order."""
_MOST_CELLS = 250_000

Layer = frozenset[tuple[str, tuple[Shape, ...]]]
"""The tensors of a layer: where they lie in it, and their shapes in every block."""


class MovedList(Struct, frozen=True):
    """A list whose numbers moved: the path before the numbers, and which number became which where only one fits."""

    prefix: str
    moved: Mapping[int, int]

    def judge(self, source: str, target: str) -> float:
        """Weigh two places of the list: 1 where the one became the other, -1 where either became another, else 0."""
        one, other = _split(source, self.prefix), _split(target, self.prefix)
        if one is None or other is None:
            return 0.0
        if one[0] in self.moved:
            return 1.0 if (self.moved[one[0]], one[1]) == other else -1.0
        return -1.0 if other[0] in self.moved.values() else 0.0


def find_moved(sources: Sequence[Slot], targets: Sequence[Slot]) -> Iterator[MovedList]:
    """Find the lists of the same path on both sides of which a number stands for another layer there.

    The layers of both are aligned in order, as many as possible; a layer is taken to have become another only if it
    does so in every such alignment.
    """
    sides = _read_lists(sources), _read_lists(targets)
    for prefix in sides[0].keys() & sides[1].keys():
        one, other = (dict(sorted(side[prefix].items())) for side in sides)
        has_moved = any(one[number] != other[number] for number in one.keys() & other.keys())
        if not has_moved or len(one) * len(other) > _MOST_CELLS:
            continue
        length, pairs = _align(list(one.values()), list(other.values()))
        if length >= max(2, _LEAST_ALIKE * min(len(one), len(other))):
            numbers = list(one), list(other)
            yield MovedList(prefix, {numbers[0][i]: numbers[1][j] for i, j in pairs})


def _read_lists(slots: Sequence[Slot]) -> dict[str, dict[int, Layer]]:
    """Collect the layers of each list by their numbers."""
    found: dict[str, dict[int, set[tuple[str, tuple[Shape, ...]]]]] = {}
    for slot in slots:
        for number in _NUMBER.finditer(slot.place):
            layers = found.setdefault(slot.place[: number.start()], {})
            layers.setdefault(int(number[1]), set()).add((slot.place[number.end() :], slot.shapes))
    return {
        prefix: {number: frozenset(layer) for number, layer in layers.items()}
        for prefix, layers in found.items()
        if len(layers) > 1
    }


def _split(place: str, prefix: str) -> tuple[int, str] | None:
    """Take a place of a list apart: the number, and what follows."""
    number, dot, rest = place.removeprefix(prefix).partition(".")
    return (int(number), rest) if place.startswith(prefix) and dot and number.isdigit() else None


def _align(one: Sequence[Layer], other: Sequence[Layer]) -> tuple[int, list[tuple[int, int]]]:
    """Give the length of the longest common subsequence, and the pairs that every one of that length has."""
    before, after = _lengths(one, other), _lengths(one[::-1], other[::-1])
    length = before[-1][-1]
    rest = [[after[len(one) - i][len(other) - j] for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    pairs: list[tuple[int, int]] = []
    for i, layer in enumerate(one):
        fitting = [
            j for j, like in enumerate(other) if layer == like and before[i][j] + 1 + rest[i + 1][j + 1] == length
        ]
        may_be_left = any(before[i][j] + rest[i + 1][j] == length for j in range(len(other) + 1))
        if len(fitting) == 1 and not may_be_left:
            pairs.append((i, fitting[0]))
    return length, pairs


def _lengths(one: Sequence[Layer], other: Sequence[Layer]) -> list[list[int]]:
    """Give the length of the longest common subsequence of each pair of beginnings."""
    table = [[0] * (len(other) + 1)]
    for layer in one:
        above = table[-1]
        line = [0]
        for j, like in enumerate(other):
            line.append(above[j] + 1 if layer == like else max(above[j + 1], line[j]))
        table.append(line)
    return table
