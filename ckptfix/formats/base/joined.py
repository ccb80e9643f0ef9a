"""A tensor whose elements lie in several places: boxes of it, each a tensor of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
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

    Rows that one piece holds are passed on as they come. Pieces that hold the same rows are laid side by side, about
    CHUNK bytes at once; others, which no known writer makes, are laid out together.
    """
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
        pieces = [Piece(piece.offsets[1:], _first_row(piece.ref)) for piece in pieces]
    for band in _bands(pieces):
        start, stop = band[0].offsets[0], max(map(_stop, band))
        if len(band) == 1:
            yield from chunks(band[0].ref)
            continue
        aligned = all((piece.offsets[0], _stop(piece)) == (start, stop) for piece in band)
        row = band[0].ref.spec.dtype.bits // 8 * math.prod(shape[1:])
        step = max(1, CHUNK // row) if aligned else stop - start
        for first in range(start, stop, step):
            yield _block(shape, band, range(first, min(first + step, stop)), chunks)


def _bands(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Group the pieces, so that each row is of one group."""
    band: list[Piece] = []
    stop = 0
    for piece in sorted(pieces, key=lambda piece: piece.offsets[0]):
        if band and piece.offsets[0] >= stop:
            yield band
            band = []
        band.append(piece)
        stop = max(stop, _stop(piece))
    if band:
        yield band


def _block(shape: Shape, band: Sequence[Piece], rows: range, chunks: Callable[[TensorRef], Iterator[bytes]]) -> bytes:
    """Lay out some rows of a band."""
    import numpy as np

    width = band[0].ref.spec.dtype.bits // 8
    block = np.empty((len(rows), *shape[1:], width), np.uint8)
    for piece in band:
        start, stop = max(rows.start, piece.offsets[0]), min(rows.stop, _stop(piece))
        ref = _rows(piece, start, stop)
        starts = (start - rows.start, *piece.offsets[1:])
        place = tuple(slice(at, at + size) for at, size in zip(starts, ref.spec.shape, strict=True))
        block[place] = np.frombuffer(b"".join(chunks(ref)), np.uint8).reshape(*ref.spec.shape, width)
    return block.tobytes()


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
