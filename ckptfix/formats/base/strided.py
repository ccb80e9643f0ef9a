"""Strided views: which bytes of a storage they need, and how these are laid out contiguously, a block at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from ckptfix.formats.base.file import CHUNK
from ckptfix.formats.base.values import TensorRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HELD = 32 * CHUNK
"""Bytes of a storage that are held at once: a view that spans no more is read in one piece."""

_SHORT = 1 << 14
"""Reads of fewer bytes than this cost more than the bytes: larger blocks make them longer."""

_SPARSE = 2
"""A run of which less than one part in this many is wanted is not read whole."""

Axis = tuple[int, int]
"""The extent of an axis, and its stride in elements."""
ReadBytes = Callable[[int, int], bytes]
"""Gives the bytes of a storage, from and to."""


def span(ref: TensorRef) -> tuple[int, int]:
    """Give the bytes of the storage, from and to, that the elements of a tensor lie between."""
    bits = ref.spec.dtype.bits
    reach = _reach(list(zip(ref.spec.shape, ref.stride, strict=True)))
    return ref.offset * bits // 8, ((ref.offset + reach + 1) * bits + 7) // 8


def gather(ref: TensorRef, read: ReadBytes, byteorder: Literal["little", "big"]) -> Iterator[bytes]:
    """Lay a strided, byte-swapped or lazily negated view out contiguously, little-endian.

    A view may be far larger than what it views (`expand`), or be turned against it: it is never held as a whole.
    """
    import numpy as np

    dtype = ref.spec.dtype
    itemsize = dtype.bits // 8
    parts = 2 if dtype.kind == "complex" else 1
    # One more axis of real and imaginary parts: all that follows is then integer arithmetic on each part.
    width = itemsize // parts
    element = np.dtype(f"u{itemsize}" if itemsize <= 8 else np.complex128)
    axes = [(extent, step) for extent, step in zip(ref.spec.shape, ref.stride, strict=True) if extent != 1]
    for block, offset in _blocks(axes, ref.offset, _block_numel(axes, itemsize)):
        found = _fetch(block, offset, read, element)
        for piece in _pieces(found):
            flat = piece.reshape(-1).view(f"{'>' if byteorder == 'big' else '<'}u{width}").reshape(-1, parts)
            flat = flat.astype(f"<u{width}", copy=False)
            if dtype.kind in ("float", "complex"):
                sign = flat.dtype.type(1 << (8 * width - 1))
                if "conj" in ref.lazy and parts == 2:
                    flat = flat ^ np.array([0, sign], flat.dtype)
                if "neg" in ref.lazy:
                    flat = flat ^ sign
            elif "neg" in ref.lazy:
                flat = ~flat + flat.dtype.type(1)
            yield flat.tobytes()


def _reach(axes: Sequence[Axis]) -> int:
    """Count the elements from the first of a view to its last."""
    return sum((extent - 1) * step for extent, step in axes)


def _block_numel(axes: Sequence[Axis], itemsize: int) -> int:
    """Choose how many elements are laid out at once: as few as are read in long runs."""
    if (_reach(axes) + 1) * itemsize <= HELD:
        return HELD // itemsize
    for nbytes in (CHUNK, 4 * CHUNK, 16 * CHUNK):
        block, _ = next(_blocks(axes, 0, nbytes // itemsize))
        if (_reach(_dense(block)) + 1) * itemsize >= _SHORT:
            return nbytes // itemsize
    return HELD // itemsize


def _blocks(axes: Sequence[Axis], offset: int, most: int) -> Iterator[tuple[Sequence[Axis], int]]:
    """Cut a view along its outer axes into blocks of at most so many elements, in order."""
    if not axes or math.prod(extent for extent, _ in axes) <= most:
        yield axes, offset
        return
    (extent, step), *inner = axes
    rows = most // math.prod(extent for extent, _ in inner)
    if rows == 0:
        for row in range(extent):
            yield from _blocks(inner, offset + row * step, most)
    else:
        for start in range(0, extent, rows):
            yield [(min(rows, extent - start), step), *inner], offset + start * step


def _dense(axes: Sequence[Axis]) -> list[Axis]:
    """Give the axes of the smallest steps, as many as make a run of which most is wanted."""
    by_step = sorted(axes, key=lambda axis: -axis[1])
    if (_reach(by_step) + 1) <= CHUNK // 16:  # a few elements far apart: reading between them costs nothing
        return by_step
    while _reach(by_step) + 1 > _SPARSE * math.prod(extent for extent, step in by_step if step):
        by_step = by_step[1:]
    return by_step


def _fetch(axes: Sequence[Axis], offset: int, read: ReadBytes, element: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Read a block, in runs of which most is wanted, and view it."""
    import numpy as np

    size = element.itemsize
    dense = _dense(axes)
    length = _reach(dense) + 1
    walked = sorted(range(len(axes)), key=lambda axis: -axes[axis][1])[: len(axes) - len(dense)]
    starts = (
        offset + sum(place * axes[axis][1] for axis, place in zip(walked, places, strict=True))
        for places in itertools.product(*(range(axes[axis][0]) for axis in walked))
    )
    data = b"".join(read(start * size, (start + length) * size) for start in starts)
    steps = [step for _, step in axes]
    step = length
    for axis in reversed(walked):
        steps[axis] = step
        step *= axes[axis][0]
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(data, element),
        tuple(extent for extent, _ in axes),
        tuple(step * size for step in steps),
        writeable=False,
    )


def _pieces(view: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Cut a block along its outer axes into pieces of at most CHUNK bytes, in order, each laid out contiguously."""
    import numpy as np

    if view.nbytes <= CHUNK or view.ndim < 1:
        yield np.ascontiguousarray(view)
        return
    rows = CHUNK // (view.nbytes // view.shape[0])
    if rows == 0:
        for row in view:
            yield from _pieces(row)
    else:
        for start in range(0, view.shape[0], rows):
            yield np.ascontiguousarray(view[start : start + rows])
