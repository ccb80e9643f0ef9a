"""How one sequence lies in another: a start, and digits that step through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptfix.inference.example.bits import Hashes
from ckptfix.tensors import Shape

_MOST_PLACES = 32
"""How many places of one value are tried."""


class Digit(NamedTuple):
    """A digit of a mixed radix: its size, and by how much one step moves in the piece and in the whole."""

    size: int
    piece: int
    whole: int


class Strided(NamedTuple):
    """`piece[sum of n * digit.piece]` is `whole[start + sum of n * digit.whole]`, for all n below the sizes."""

    start: int
    digits: tuple[Digit, ...]


def find_strides(piece: Hashes, whole: Hashes) -> Iterator[Strided]:
    """Give the ways in which all of the piece lies in the whole, digits from the fastest to the slowest."""
    order = np.argsort(whole, kind="stable")
    for start in _places(piece[0], whole, order):
        yield from _extend(piece, whole, order, Strided(int(start), ()))


def _places(value: np.uint64, whole: Hashes, order: NDArray[np.int64]) -> NDArray[np.int64]:
    low, high = (int(np.searchsorted(whole, value, side, sorter=order)) for side in ("left", "right"))
    return order[low : min(high, low + _MOST_PLACES)]


def _extend(piece: Hashes, whole: Hashes, order: NDArray[np.int64], found: Strided) -> Iterator[Strided]:
    """Add slower digits until all of the piece is covered."""
    steps = offsets(found.digits)
    length = len(steps)
    if length == len(piece):
        yield found
        return
    for place in _places(piece[length], whole, order):
        stride = int(place) - found.start
        run = _run(piece, whole, found.start + steps, stride)
        for size in range(run, 1, -1):
            if len(piece) % (length * size) == 0:
                digit = Digit(size, length, stride)
                yield from _extend(piece, whole, order, Strided(found.start, (*found.digits, digit)))


def _run(piece: Hashes, whole: Hashes, places: NDArray[np.int64], stride: int) -> int:
    """Count how often the places can move on by a stride and still agree."""
    length = len(places)
    count = 1
    while (count + 1) * length <= len(piece):
        moved = places + count * stride
        if moved.min() < 0 or moved.max() >= len(whole):
            break
        if not np.array_equal(whole[moved], piece[count * length : (count + 1) * length]):
            break
        count += 1
    return count


def offsets(digits: tuple[Digit, ...]) -> NDArray[np.int64]:
    """Give the place in the whole of each place in the piece, from the start on."""
    steps = np.zeros(1, np.int64)
    for digit in digits:
        steps = (np.arange(digit.size)[:, None] * digit.whole + steps).reshape(-1)
    return steps


def split_at(digits: tuple[Digit, ...], shape: Shape, side: str) -> tuple[Digit, ...] | None:
    """Split digits so that none reaches over the end of an axis, of the piece or of the whole. None where one must."""
    done: list[Digit] = []
    for digit in digits:
        edge = 1
        for extent in reversed(shape):
            edge *= extent
            step = digit.piece if side == "piece" else digit.whole
            if step > 0 and step < edge < step * digit.size:
                if edge % step or digit.size % (edge // step):
                    return None
                inner = edge // step
                done.append(Digit(inner, digit.piece, digit.whole))
                digit = Digit(digit.size // inner, digit.piece * inner, digit.whole * inner)
        done.append(digit)
    return tuple(done)
