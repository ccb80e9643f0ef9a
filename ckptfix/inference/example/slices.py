"""Fingerprints of tensors that do not depend on the order of the numbers.

A tensor is sliced along some of its axes, and each slice is known by the sum of the hashes of its numbers. Rows that
were split off, fused, stacked, transposed or put in another order keep their sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ckptfix.inference.example.bits import Bits, Hashes, hashed_rows
from ckptfix.tensors import Shape

Axes = tuple[int, ...]

_MOST_SLICES = 1 << 20
_FEW_SLICES = 1 << 16
"""So many slices may be of any length."""
_LONG = 64
"""Of more slices than that, each has at least so many numbers: short ones would cost more than they tell."""


class Fingerprint(Struct, frozen=True):
    """The sums of a tensor whose axes of extent 1 are left out. `slices[axes]` is flat, the first axis slowest."""

    shape: Shape
    slices: Mapping[Axes, Hashes]
    is_constant: bool

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def whole(self) -> int:
        """The sum over all numbers."""
        return int(self.slices[()][0])


def choices_of_axes(shape: Shape) -> list[Axes]:
    """List the axes to slice along: none first, then those that leave the largest slices."""
    axes = range(len(shape))
    most = len(shape) if len(shape) <= 4 else 2
    chosen = [some for count in range(most + 1) for some in combinations(axes, count)]
    numel = math.prod(shape)
    fitting = [
        some
        for some in chosen
        if (count := _extent(shape, some)) <= _FEW_SLICES or (count <= _MOST_SLICES and numel >= count * _LONG)
    ]
    return sorted(fitting, key=lambda some: _extent(shape, some))


def _extent(shape: Shape, axes: Axes) -> int:
    return math.prod(shape[axis] for axis in axes)


def take_fingerprint(bits: Bits) -> Fingerprint:
    """Sum up the slices of a tensor, some rows at a time. An empty tensor counts as constant."""
    squeezed = bits.reshape([extent for extent in bits.shape if extent != 1] or [1])
    shape: Shape = tuple(squeezed.shape)
    choices = choices_of_axes(shape)
    sums = {axes: np.zeros([shape[axis] for axis in axes], np.uint64) for axes in choices}
    for rows, hashed in hashed_rows(squeezed):
        for axes, total in sums.items():
            others = tuple(axis for axis in range(len(shape)) if axis not in axes)
            part = hashed.sum(axis=others, dtype=np.uint64)
            if 0 in axes:
                total[rows] = part
            else:
                total += part
    flat = squeezed.reshape(-1)
    constant = flat.size == 0 or bool((flat == flat[0]).all())
    return Fingerprint(shape, {axes: total.reshape(-1) for axes, total in sums.items()}, constant)


class Hit(NamedTuple):
    """Slices that a tensor shares with another: its key, its axes, how many of its own and of the other's."""

    key: str
    axes: Axes
    own: int
    others: int


class Index:
    """Finds the tensors that have slices in common with another."""

    def __init__(self, prints: Mapping[str, Fingerprint]) -> None:
        self._prints = prints
        entries: dict[int, list[tuple[str, Axes, Hashes]]] = {}
        for key, print_ in prints.items():
            if print_.numel and not print_.is_constant:
                for axes, sums in print_.slices.items():
                    entries.setdefault(print_.numel // len(sums), []).append((key, axes, sums))
        self._by_size = {size: _Sorted.of(found) for size, found in entries.items()}

    def shared(self, other: Fingerprint, axes: Axes) -> Iterable[Hit]:
        """Find the tensors that have slices of another one, those with most of them first."""
        sums = other.slices[axes]
        table = self._by_size.get(other.numel // max(len(sums), 1))
        return table.find(sums) if table else ()


class _Sorted(Struct, frozen=True):
    """All slices of one size, sorted by their sums. `groups[n]` and `places[n]` say whose the n-th is, and where."""

    names: list[tuple[str, Axes]]
    sums: Hashes
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, found: list[tuple[str, Axes, Hashes]]) -> _Sorted:
        sums = np.concatenate([sums for _, _, sums in found])
        groups = np.repeat(np.arange(len(found)), [len(sums) for _, _, sums in found])
        order = np.argsort(sums, kind="stable")
        return cls([(key, axes) for key, axes, _ in found], sums[order], groups[order])

    def find(self, wanted: Hashes) -> list[Hit]:
        wanted = np.unique(wanted)
        first = np.searchsorted(self.sums, wanted, "left")
        count = np.searchsorted(self.sums, wanted, "right") - first
        groups = self.groups[_ranges(first, count)]
        whose = np.repeat(np.arange(len(wanted)), count)
        own = np.bincount(groups, minlength=len(self.names))
        # Equal sums lie in the order of the groups, so that a group's repeated ones are neighbours.
        is_new = np.ones(len(groups), bool)
        is_new[1:] = (groups[1:] != groups[:-1]) | (whose[1:] != whose[:-1])
        others = np.bincount(groups[is_new], minlength=len(self.names))
        hits = [Hit(*self.names[group], int(own[group]), int(others[group])) for group in np.flatnonzero(own)]
        return sorted(hits, key=lambda hit: -hit.others)


def _ranges(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lay the ranges of `count` numbers from `first` end to end."""
    starts = np.cumsum(count) - count
    return np.repeat(first - starts, count) + np.arange(int(count.sum()))
