"""A tensor seen as boxes of source tensors: what splitting, fusing, turning and cropping make, before a byte is read.

Every method gives another view and reads nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.formats.base import Joined, Piece, Storage, TensorRef, contiguous_stride
from ckptfix.tensors import DType, Shape, TensorSpec

MOST_PIECES = 20_000


class TooManyPieces(Exception):
    """A view that is no longer a few boxes: the values have to be computed."""


class View(Struct, frozen=True):
    """Boxes that cover a tensor, each element once. The methods are those of torch's tensors.

    `axes` are those of the boxes, which may be other than those of `shape` until an operation needs them to be alike.
    """

    shape: Shape
    dtype: DType
    axes: Shape
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, ref: TensorRef) -> View:
        """See a tensor of a file."""
        shape = ref.spec.shape
        return cls(shape, ref.spec.dtype, shape, tuple(_flat(Piece((0,) * len(shape), ref))))

    @classmethod
    def filled(cls, spec: TensorSpec, element: bytes) -> View:
        """See one element everywhere."""
        return cls.of(TensorRef(spec, Storage.holding(element), 0, (0,) * len(spec.shape)))

    def ref(self) -> TensorRef:
        """Give a tensor that the reader reads: of the same elements in the same order, perhaps along other axes."""
        if len(self.pieces) == 1:
            return self.pieces[0].ref
        return TensorRef(TensorSpec(self.axes, self.dtype), Joined(self.pieces), 0, contiguous_stride(self.axes))

    def narrow(self, dim: int, start: int, length: int) -> View:
        """See `length` rows along an axis."""
        pieces = (_narrow(piece, dim, start, start + length) for piece in self._regrouped())
        return self._made(_put(self.shape, dim, (length,)), (piece for piece in pieces if piece is not None))

    def select(self, dim: int, index: int) -> View:
        """See one row, without its axis."""
        one = self.narrow(dim, index, 1)
        return self._made(_put(self.shape, dim, ()), (_edit(piece, dim, (), (), ()) for piece in one.pieces))

    def unsqueeze(self, dim: int) -> View:
        """Add an axis of one row."""
        pieces = (_one_row(piece, dim) for piece in self._regrouped())
        return self._made((*self.shape[:dim], 1, *self.shape[dim:]), pieces)

    def permute(self, order: Sequence[int]) -> View:
        """Put the axes into another order."""

        def turned(values: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(values[axis] for axis in order)

        pieces = (
            _piece(piece.ref, turned(piece.offsets), turned(piece.ref.spec.shape), turned(piece.ref.stride))
            for piece in self._regrouped()
        )
        return self._made(turned(self.shape), pieces)

    def expand(self, shape: Sequence[int]) -> View:
        """Repeat the rows of axes that have one."""
        found = self
        for dim, extent in enumerate(shape):
            if found.shape[dim] != extent:
                pieces = (_edit(piece, dim, (0,), (extent,), (0,)) for piece in found._regrouped() if extent)
                found = found._made(_put(found.shape, dim, (extent,)), pieces)
        return found

    def take(self, dim: int, rows: Sequence[int]) -> View:
        """See some rows, in a given order."""
        runs = [self.narrow(dim, run.start, len(run)) for run in _runs(rows)]
        return concatenate(runs, dim) if runs else self.narrow(dim, 0, 0)

    def reshape(self, shape: Sequence[int]) -> View:
        """See the same elements, in the same order, along other axes."""
        return replace(self, shape=tuple(shape))

    def _regrouped(self) -> tuple[Piece, ...]:
        """Give the boxes along the axes of `shape`."""
        return self.pieces if self.axes == self.shape else _regroup(self.axes, self.shape, self.pieces)

    def _made(self, shape: Shape, pieces: Iterable[Piece]) -> View:
        return View(shape, self.dtype, shape, _few(pieces))


def concatenate(views: Sequence[View], dim: int) -> View:
    """Lay views end to end along an axis."""
    pieces: list[Piece] = []
    start = 0
    for view in views:
        pieces += [_moved(piece, dim, start) for piece in view._regrouped()]
        start += view.shape[dim]
    first = views[0]
    return first._made(_put(first.shape, dim, (start,)), pieces)


def _few(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    kept = tuple(itertools.islice(pieces, MOST_PIECES + 1))
    if len(kept) > MOST_PIECES:
        raise TooManyPieces
    return kept


def _regroup(axes: Shape, shape: Shape, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Bring one axis after the other to its extent: by merging it with the next, then by splitting off what is over."""
    if not pieces:
        return ()
    for dim, extent in enumerate(shape):
        while dim < len(axes) and axes[dim] % extent:
            axes, pieces = _merge(axes, dim, pieces)
        if dim < len(axes) and axes[dim] == extent:
            continue
        if extent == 1:
            axes = (*axes[:dim], 1, *axes[dim:])
            pieces = tuple(_one_row(piece, dim) for piece in pieces)
        else:
            inner = axes[dim] // extent
            axes = _put(axes, dim, (extent, inner))
            pieces = _few(part for piece in pieces for part in _fold(piece, dim, inner))
    while len(axes) > len(shape):  # what is left are axes of one row
        last = len(axes) - 1
        axes = axes[:last]
        pieces = tuple(_edit(piece, last, (), (), ()) for piece in pieces)
    return pieces


def _merge(axes: Shape, dim: int, pieces: tuple[Piece, ...]) -> tuple[Shape, tuple[Piece, ...]]:
    extent, inner = axes[dim : dim + 2]
    unfolded = (part for piece in pieces for part in _unfold(piece, dim, inner))
    return (*axes[:dim], extent * inner, *axes[dim + 2 :]), _few(unfolded)


def _one_row(piece: Piece, dim: int) -> Piece:
    return _edit(piece, slice(dim, dim), (0,), (1,), (0,))


def _piece(ref: TensorRef, offsets: tuple[int, ...], shape: Shape, stride: tuple[int, ...], start: int = 0) -> Piece:
    spec = TensorSpec(shape, ref.spec.dtype)
    return Piece(offsets, TensorRef(spec, ref.storage, ref.offset + start, stride, ref.lazy))


def _flat(piece: Piece) -> Iterator[Piece]:
    """Give the boxes of storages that a box of a joined tensor is made of; none where there is no element."""
    if isinstance(piece.ref.storage, Joined):
        for inner in piece.ref.storage.pieces:
            offsets = tuple(map(sum, zip(piece.offsets, inner.offsets, strict=True)))
            yield from _flat(replace(inner, offsets=offsets))
    elif piece.ref.spec.numel:
        yield piece


def _edit(
    piece: Piece,
    dim: int | slice,
    offsets: tuple[int, ...],
    extents: tuple[int, ...],
    steps: tuple[int, ...],
    start: int = 0,
) -> Piece:
    """Replace an axis by others."""
    ref = piece.ref
    return _piece(
        ref,
        _put(piece.offsets, dim, offsets),
        _put(ref.spec.shape, dim, extents),
        _put(ref.stride, dim, steps),
        start,
    )


def _put(values: tuple[int, ...], dim: int | slice, new: tuple[int, ...]) -> tuple[int, ...]:
    place = slice(dim, dim + 1) if isinstance(dim, int) else dim
    return (*values[: place.start], *new, *values[place.stop :])


def _moved(piece: Piece, dim: int, by: int) -> Piece:
    return Piece(_put(piece.offsets, dim, (piece.offsets[dim] + by,)), piece.ref)


def _narrow(piece: Piece, dim: int, start: int, stop: int) -> Piece | None:
    at, extent, step = piece.offsets[dim], piece.ref.spec.shape[dim], piece.ref.stride[dim]
    first, last = max(start, at), min(stop, at + extent)
    if first >= last:
        return None
    return _edit(piece, dim, (first - start,), (last - first,), (step,), (first - at) * step)


def _fold(piece: Piece, dim: int, inner: int) -> Iterator[Piece]:
    """Fold an axis of a box into two, the inner one this long: whole rows in one box, parts of rows in others."""
    at, left, step = piece.offsets[dim], piece.ref.spec.shape[dim], piece.ref.stride[dim]
    done = 0
    while left:
        row, place = divmod(at + done, inner)
        rows = left // inner if place == 0 else 0
        extents = (rows, inner) if rows else (1, min(left, inner - place))
        yield _edit(piece, dim, (row, place), extents, (inner * step, step), done * step)
        done += math.prod(extents)
        left -= math.prod(extents)


def _unfold(piece: Piece, dim: int, inner: int) -> Iterator[Piece]:
    """Make one axis of two of a box: one box where its rows follow one another, else one for each row."""
    pair = slice(dim, dim + 2)
    at, inner_at = piece.offsets[pair]
    rows, extent = piece.ref.spec.shape[pair]
    step, inner_step = piece.ref.stride[pair]
    if extent == inner and (extent == 1 or step == extent * inner_step):
        yield _edit(piece, pair, (at * inner,), (rows * extent,), (step if extent == 1 else inner_step,))
        return
    for row in range(rows):
        yield _edit(piece, pair, ((at + row) * inner + inner_at,), (extent,), (inner_step,), row * step)


def _runs(rows: Sequence[int]) -> Iterator[range]:
    """Give the runs of rows that follow one another."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[end - 1] + 1:
            yield range(rows[start], rows[end - 1] + 1)
            start = end
