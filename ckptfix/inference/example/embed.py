"""Find where a tensor lies in another, by value: digits over the flat indices of both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np
from msgspec import Struct

from ckptfix.inference.example.bits import Bits
from ckptfix.inference.example.slices import Axes, Fingerprint, take_fingerprint
from ckptfix.inference.example.strides import Digit, Strided, find_strides, offsets, split_at
from ckptfix.tensors import Shape

_MOST_WAYS = 4
"""How many ways to lay slices into slices are tried."""
_MOST_SLICES = 4
"""How many slices are looked at to choose one."""


Order = Literal["forward", "any"]


class Known(Struct, frozen=True, dict=True):
    """A tensor without its axes of extent 1, and its fingerprint, taken when it is first needed."""

    bits: Bits
    known: Fingerprint | None = None

    @classmethod
    def of(cls, bits: Bits, known: Fingerprint | None = None) -> Known:
        """Leave out the axes of extent 1."""
        return cls(bits.reshape([extent for extent in bits.shape if extent != 1] or [1]), known)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The sums of its slices."""
        return self.known or take_fingerprint(self.bits)

    @property
    def shape(self) -> Shape:
        """The extents."""
        return tuple(self.bits.shape)


def embed(piece: Known, whole: Known) -> Strided | None:
    """Find all of the piece in the whole, to the bit; None where it is not there, or in no regular order.

    An order that runs forward is preferred to one that swaps halves: few different numbers may allow both.
    """
    return _embed(piece, whole, "forward") or _embed(piece, whole, "any")


def _embed(piece: Known, whole: Known, order: Order) -> Strided | None:
    if piece.bits.size == whole.bits.size and np.array_equal(piece.bits.reshape(-1), whole.bits.reshape(-1)):
        return Strided(0, (Digit(piece.bits.size, 1, 1),))
    for own, others in _slicings(piece.fingerprint, whole.fingerprint):
        sums, all_sums = piece.fingerprint.slices[own], whole.fingerprint.slices[others]
        for outer in islice(find_strides(sums, all_sums), _MOST_WAYS):
            if order == "forward" and any(digit.whole < 0 for digit in outer.digits):
                continue
            found = _with_inner(piece, whole, own, others, outer, order)
            if found is not None and agrees(piece.bits, whole.bits, found):
                return found
    return None


def _slicings(piece: Fingerprint, whole: Fingerprint) -> Iterator[tuple[Axes, Axes]]:
    """Give the ways to slice both sides so that every slice of the piece is one of the whole; large slices first."""
    for own, sums in piece.slices.items():
        size = piece.numel // len(sums)
        for others, all_sums in whole.slices.items():
            if whole.numel // len(all_sums) == size and (own or others) and np.isin(sums, all_sums).all():
                yield own, others


def _with_inner(piece: Known, whole: Known, own: Axes, others: Axes, outer: Strided, order: Order) -> Strided | None:
    """Extend an order of slices by the order inside of them, which the first slice shows."""
    left = _lift(outer, own, others, piece.shape, whole.shape)
    if left is None:
        return None
    place = _telling(piece.bits, own)
    first = _slice(piece.bits, own, place)
    there = _slice(whole.bits, others, outer.start + int(offsets(outer.digits)[place]))
    inner = _embed(Known.of(first), Known.of(there), order) if first.size > 1 else Strided(0, ())
    if inner is None:
        return None
    rest = tuple(axis for axis in range(len(piece.shape)) if axis not in own)
    rest_there = tuple(axis for axis in range(len(whole.shape)) if axis not in others)
    lifted = _lift(inner, rest, rest_there, piece.shape, whole.shape)
    return Strided(left.start + lifted.start, (*lifted.digits, *left.digits)) if lifted is not None else None


def _telling(bits: Bits, axes: Axes) -> int:
    """Choose the slice with the most distinct numbers among the first ones: a row of zeros shows no order."""
    count = min(math.prod(bits.shape[axis] for axis in axes), _MOST_SLICES)
    return max(range(count), key=lambda place: len(np.unique(_slice(bits, axes, place))))


def _slice(bits: Bits, axes: Axes, place: int) -> Bits:
    places = np.unravel_index(place, [bits.shape[axis] for axis in axes]) if axes else ()
    at = dict(zip(axes, places, strict=True))
    return np.ascontiguousarray(bits[tuple(at.get(axis, slice(None)) for axis in range(bits.ndim))])


def _lift(found: Strided, own: Axes, others: Axes, shape: Shape, whole: Shape) -> Strided | None:
    """Turn digits over some axes of both tensors into digits over all of them."""
    small, large = tuple(shape[axis] for axis in own), tuple(whole[axis] for axis in others)
    digits = split_at(found.digits, small, "piece")
    digits = split_at(digits, large, "whole") if digits is not None else None
    if digits is None:
        return None
    start = sum(
        int(place) * stride_of(whole, axis)
        for place, axis in zip(np.unravel_index(found.start, large) if large else (), others, strict=True)
    )
    return Strided(
        start,
        tuple(
            Digit(digit.size, _moved(digit.piece, own, shape), _moved(digit.whole, others, whole)) for digit in digits
        ),
    )


def _moved(step: int, axes: Axes, shape: Shape) -> int:
    """Give the step over the whole tensor of a step over some of its axes."""
    sign, step = (-1, -step) if step < 0 else (1, step)
    inner = 1
    for axis in reversed(axes):
        if step < inner * shape[axis]:
            return sign * (step // inner) * stride_of(shape, axis)
        inner *= shape[axis]
    return 0


def stride_of(shape: Shape, axis: int) -> int:
    """Give the number of elements from one place of an axis to the next."""
    return math.prod(shape[axis + 1 :])


def agrees(piece: Bits, whole: Bits, found: Strided) -> bool:
    """Compare all bits of the piece with those that the digits find in the whole."""
    sizes = [digit.size for digit in found.digits]
    if math.prod(sizes) != piece.size:
        return False
    low = found.start + sum(min(digit.whole * (digit.size - 1), 0) for digit in found.digits)
    high = found.start + sum(max(digit.whole * (digit.size - 1), 0) for digit in found.digits)
    if low < 0 or high >= whole.size:
        return False
    return np.array_equal(
        _view(piece.reshape(-1), sizes, [digit.piece for digit in found.digits]),
        _view(whole.reshape(-1)[found.start :], sizes, [digit.whole for digit in found.digits]),
    )


def _view(flat: Bits, sizes: list[int], steps: list[int]) -> Bits:
    return np.lib.stride_tricks.as_strided(flat, sizes, [step * flat.itemsize for step in steps], writeable=False)
