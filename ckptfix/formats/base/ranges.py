"""Which runs of a file are the bytes of a tensor as they lie there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from ckptfix.formats.base.joined import Joined, SideBySide, in_order
from ckptfix.formats.base.values import TensorRef

_SHORT = 1 << 16
"""Runs of fewer bytes are gathered in blocks: a system call for each would cost more than copying it."""


class Range(Struct, frozen=True, gc=False):
    """Some bytes of a file."""

    path: Path
    start: int
    nbytes: int


def ranges_of(ref: TensorRef) -> list[Range] | None:
    """List the runs that are the tensor's bytes, in order.

    None where the bytes must be decoded, gathered, or held against a checksum.
    """
    if ref.spec.nbytes == 0:
        return []
    if isinstance(ref.storage, Joined):
        found: list[Range] = []
        for part in in_order(ref.spec.shape, ref.storage.pieces):
            inner = None if isinstance(part, SideBySide) else ranges_of(part)
            if inner is None:
                return None
            found += inner
        return found
    storage = ref.storage
    plain = storage.held is None and storage.encoding == "raw" and storage.crc32 is None
    if not plain or storage.byteorder != "little" or ref.lazy:
        return None
    place = storage.offset + storage.skip
    if ref.is_contiguous:
        return [Range(storage.path, place + ref.offset * ref.spec.dtype.bits // 8, ref.spec.nbytes)]
    itemsize = ref.spec.dtype.bits // 8
    outer, run = _split(ref)
    if run * itemsize < _SHORT:
        return None
    starts = _starts(ref, outer)
    return [Range(storage.path, place + start * itemsize, run * itemsize) for start in starts]


def _split(ref: TensorRef) -> tuple[int, int]:
    """Give the number of outer axes that are walked, and how many elements lie end to end within them."""
    axes = list(zip(ref.spec.shape, ref.stride, strict=True))
    run = 1
    while axes and (axes[-1][0] == 1 or axes[-1][1] == run):
        run *= axes.pop()[0]
    return len(axes), run


def _starts(ref: TensorRef, outer: int) -> Iterator[int]:
    for places in itertools.product(*map(range, ref.spec.shape[:outer])):
        yield ref.offset + sum(place * step for place, step in zip(places, ref.stride[:outer], strict=True))
