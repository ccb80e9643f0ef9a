"""A tensor whose elements lie in several places: boxes of it, each a tensor of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.formats.base.file import CHUNK

if TYPE_CHECKING:
    from ckptfix.formats.base.values import TensorRef
    from ckptfix.tensors import Shape


class Piece(Struct, frozen=True):
    """A box of a tensor: the place of its first element, and its elements."""

    offsets: tuple[int, ...]
    ref: TensorRef


class Joined(Struct, frozen=True):
    """What stands in for a storage: pieces that cover a tensor, each element once. Whoever makes one has checked that.

    Only the whole tensor is a view of it, contiguous and little-endian.
    """

    pieces: tuple[Piece, ...]


Chunks = Iterator[bytes | memoryview]


def join(shape: Shape, pieces: Sequence[Piece], chunks: Callable[[TensorRef], Chunks]) -> Chunks:
    """Give the bytes of a whole tensor. `chunks` gives those of a piece or of some rows of one.

    Rows that one piece holds are passed on as they come. Pieces that hold the same rows are laid side by side, about
    CHUNK bytes at once.
    """
    for part in in_order(shape, pieces):
        if isinstance(part, SideBySide):
            step = max(1, CHUNK // part.row_nbytes)
            for first in range(part.rows.start, part.rows.stop, step):
                yield _block(part, range(first, min(first + step, part.rows.stop)), chunks)
        else:
            yield from chunks(part)


class SideBySide(Struct, frozen=True):
    """Some rows of a tensor, each shared by several pieces that all hold all of them."""

    shape: Shape
    rows: range
    pieces: Sequence[Piece]

    @property
    def row_nbytes(self) -> int:
        """The bytes of one row."""
        return self.pieces[0].ref.spec.dtype.bits // 8 * math.prod(self.shape[1:])


def in_order(shape: Shape, pieces: Sequence[Piece]) -> Iterator[TensorRef | SideBySide]:
    """Cut a tensor into what follows one another in its bytes. Rows that are shared are long at most CHUNK bytes."""
    if len(pieces) == 1:
        yield pieces[0].ref
        return
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
        pieces = [_row(piece, 0) for piece in pieces]
    for band in _bands(pieces):
        rows = range(band[0].offsets[0], _stop(band[0]))
        shared = SideBySide(shape, rows, band)
        if len(band) == 1:
            yield band[0].ref
        elif len(shape) == 1 or shared.row_nbytes <= CHUNK:
            yield shared
        else:
            for row in range(len(rows)):
                yield from in_order(shape[1:], [_row(piece, row) for piece in band])


def _bands(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Group the pieces by their rows, so that all pieces of a group hold the same ones; cut those that hold more."""
    band: list[Piece] = []
    stop = 0
    for piece in sorted(pieces, key=lambda piece: piece.offsets[0]):
        if band and piece.offsets[0] >= stop:
            yield from _aligned(band)
            band = []
        band.append(piece)
        stop = max(stop, _stop(piece))
    if band:
        yield from _aligned(band)


def _aligned(band: list[Piece]) -> Iterator[list[Piece]]:
    cuts = sorted({edge for piece in band for edge in (piece.offsets[0], _stop(piece))})
    if len(cuts) == 2:
        yield band
        return
    for start, stop in itertools.pairwise(cuts):
        inside = (piece for piece in band if piece.offsets[0] <= start and stop <= _stop(piece))
        yield [Piece((start, *piece.offsets[1:]), _rows(piece, start, stop)) for piece in inside]


def _block(part: SideBySide, rows: range, chunks: Callable[[TensorRef], Chunks]) -> bytes:
    """Lay out some rows that several pieces share."""
    import numpy as np

    width = part.pieces[0].ref.spec.dtype.bits // 8
    block = np.empty((len(rows), *part.shape[1:], width), np.uint8)
    for piece in part.pieces:
        ref = _rows(piece, rows.start, rows.stop)
        starts = (0, *piece.offsets[1:])
        place = tuple(slice(at, at + size) for at, size in zip(starts, ref.spec.shape, strict=True))
        block[place] = np.frombuffer(b"".join(chunks(ref)), np.uint8).reshape(*ref.spec.shape, width)
    return block.tobytes()


def _stop(piece: Piece) -> int:
    return piece.offsets[0] + piece.ref.spec.shape[0]


def _rows(piece: Piece, start: int, stop: int) -> TensorRef:
    """View rows `start` to `stop`, counted in the whole tensor."""
    ref = piece.ref
    spec = replace(ref.spec, shape=(stop - start, *ref.spec.shape[1:]))
    return replace(ref, spec=spec, offset=ref.offset + (start - piece.offsets[0]) * ref.stride[0])


def _row(piece: Piece, row: int) -> Piece:
    """View one row, counted in the piece, without its first axis."""
    ref = piece.ref
    spec = replace(ref.spec, shape=ref.spec.shape[1:])
    row_of = replace(ref, spec=spec, stride=ref.stride[1:], offset=ref.offset + row * ref.stride[0])
    return Piece(piece.offsets[1:], row_of)
