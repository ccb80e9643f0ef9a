"""A tensor whose elements lie in several places: boxes of it, each a tensor of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ckptfix.formats.base.file import CHUNK

if TYPE_CHECKING:
    from ckptfix.formats.base.values import TensorRef
    from ckptfix.tensors import Shape


@dataclasses.dataclass(frozen=True)
class Piece:
    """A box of a tensor: the place of its first element, and its elements."""

    offsets: tuple[int, ...]
    ref: TensorRef


@dataclasses.dataclass(frozen=True)
class Joined:
    """What stands in for a storage: pieces that cover a tensor, each element once. Whoever makes one has checked that.

    Only the whole tensor is a view of it, contiguous and little-endian.
    """

    pieces: tuple[Piece, ...]


def join(shape: Shape, pieces: Sequence[Piece], chunks: Callable[[TensorRef], Iterator[bytes]]) -> Iterator[bytes]:
    """Give the bytes of a whole tensor. `chunks` gives those of a piece or of some rows of one.

    Rows that one piece holds are passed on as they come; others are laid side by side, about CHUNK bytes at once.
    """
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
        pieces = [Piece(piece.offsets[1:], _first_row(piece.ref)) for piece in pieces]
    waiting = sorted(pieces, key=lambda piece: piece.offsets[0], reverse=True)
    cuts = sorted({cut for piece in pieces for cut in (piece.offsets[0], _stop(piece))})
    band: list[Piece] = []
    for start, stop in pairwise(cuts):
        band = [piece for piece in band if _stop(piece) > start]
        while waiting and waiting[-1].offsets[0] == start:
            band.append(waiting.pop())
        if len(band) == 1:
            yield from chunks(_rows(band[0], start, stop))
        else:
            yield from _side_by_side(shape, band, range(start, stop), chunks)


def _side_by_side(
    shape: Shape, band: Sequence[Piece], rows: range, chunks: Callable[[TensorRef], Iterator[bytes]]
) -> Iterator[bytes]:
    import numpy as np

    width = band[0].ref.spec.dtype.bits // 8
    step = max(1, CHUNK // (width * math.prod(shape[1:])))
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        block = np.empty((stop - start, *shape[1:], width), np.uint8)
        for piece in band:
            ref = _rows(piece, start, stop)
            place = tuple(slice(at, at + size) for at, size in zip(piece.offsets[1:], ref.spec.shape[1:], strict=True))
            data = b"".join(chunks(ref))
            block[:, *place] = np.frombuffer(data, np.uint8).reshape(*ref.spec.shape, width)
        yield block.tobytes()


def _stop(piece: Piece) -> int:
    return piece.offsets[0] + piece.ref.spec.shape[0]


def _rows(piece: Piece, start: int, stop: int) -> TensorRef:
    """View rows `start` to `stop`, counted in the whole tensor."""
    ref = piece.ref
    spec = dataclasses.replace(ref.spec, shape=(stop - start, *ref.spec.shape[1:]))
    return dataclasses.replace(ref, spec=spec, offset=ref.offset + (start - piece.offsets[0]) * ref.stride[0])


def _first_row(ref: TensorRef) -> TensorRef:
    spec = dataclasses.replace(ref.spec, shape=ref.spec.shape[1:])
    return dataclasses.replace(ref, spec=spec, stride=ref.stride[1:])
