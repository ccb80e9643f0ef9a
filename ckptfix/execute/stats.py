"""Measure the values of tensors, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from ckptfix.execute.numbers import decode, is_known, whole_elements
from ckptfix.formats import Checkpoint, Reader


class Stats(Struct, frozen=True):
    """What the finite elements of a tensor come to, and how many are not finite. None where there are none."""

    least: float | None
    largest: float | None
    mean: float | None
    deviation: float | None
    zeros: int
    nan: int
    infinite: int

    def to_json(self) -> dict[str, float | int | None]:
        """Give the fields."""
        return structs.asdict(self)


def measure(checkpoint: Checkpoint, keys: Sequence[str]) -> Iterator[tuple[str, Stats | None]]:
    """Measure each tensor; of a complex one, the absolute values. None for a dtype of less than a byte.

    Raises what reading raises.
    """
    with Reader(checkpoint.stamps) as reader:
        for key in keys:
            ref = checkpoint.tensors[key]
            dtype = ref.spec.dtype
            if not is_known(dtype):
                yield key, None
                continue
            chunks = whole_elements(reader.passing(ref), dtype.bits // 8)
            yield key, _sum_up(_measure_block(decode(chunk, dtype)) for chunk in chunks)


class _Block(Struct, frozen=True):
    """The counts of a run of elements, and what the finite ones come to."""

    finite: int
    least: float
    largest: float
    mean: float
    deviation: float
    zeros: int
    nan: int
    infinite: int


_NOTHING = _Block(0, math.inf, -math.inf, 0.0, 0.0, 0, 0, 0)


def _measure_block(numbers: NDArray[np.float64]) -> _Block:
    is_finite = np.isfinite(numbers)
    finite = numbers if is_finite.all() else numbers[is_finite]
    nan = int(np.isnan(numbers).sum()) if finite is not numbers else 0
    infinite = numbers.size - finite.size - nan
    if not finite.size:
        return _Block(0, math.inf, -math.inf, 0.0, 0.0, 0, nan, infinite)
    least, largest = float(finite.min()), float(finite.max())
    # Sums and squares of the largest float64 numbers would overflow.
    scale = max(-least, largest) or 1.0
    scaled = finite / scale
    zeros = finite.size - int(np.count_nonzero(finite))
    mean, deviation = float(scaled.mean()) * scale, float(scaled.std()) * scale
    return _Block(finite.size, least, largest, mean, deviation, zeros, nan, infinite)


def _sum_up(blocks: Iterable[_Block]) -> Stats:
    whole = _NOTHING
    for block in blocks:
        whole = _join(whole, block)
    some = whole.finite > 0
    return Stats(
        least=whole.least if some else None,
        largest=whole.largest if some else None,
        mean=whole.mean if some else None,
        deviation=whole.deviation if some else None,
        zeros=whole.zeros,
        nan=whole.nan,
        infinite=whole.infinite,
    )


def _join(one: _Block, other: _Block) -> _Block:
    """Give the block of both. Formula: Chan, Golub, LeVeque 1979, for deviations, which do not overflow."""
    count = one.finite + other.finite
    left, right = (one.finite / count, other.finite / count) if count else (0.0, 0.0)
    across = math.sqrt(left * right)
    return _Block(
        count,
        min(one.least, other.least),
        max(one.largest, other.largest),
        left * one.mean + right * other.mean,
        math.hypot(
            math.sqrt(left) * one.deviation,
            math.sqrt(right) * other.deviation,
            across * one.mean - across * other.mean,
        ),
        one.zeros + other.zeros,
        one.nan + other.nan,
        one.infinite + other.infinite,
    )
