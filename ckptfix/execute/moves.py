"""Outputs in which no number changes but by a cast: they pass through in blocks, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from msgspec import Struct

from ckptfix.execute.arrange import arrange
from ckptfix.execute.blocks import crop, on_block, pad
from ckptfix.execute.numbers import element, is_known
from ckptfix.execute.view import TooManyPieces, View, concatenate
from ckptfix.expr import Cast, Constant, Crop, Expr, Pad, Read, Rearrange, Take
from ckptfix.formats.base import Joined, Range, TensorRef, ranges_of
from ckptfix.tensors import DType, Shape, TensorSpec


class Move(Struct, frozen=True, gc=False):
    """Elements of the source in the order of an output, and the dtypes that they are cast to, one after the other."""

    ref: TensorRef
    casts: tuple[DType, ...] = ()

    @property
    def place(self) -> tuple[str, int] | None:
        """Where the first bytes lie in the source; None where they come from nowhere."""
        ref = self.ref
        while isinstance(ref.storage, Joined):
            if not ref.storage.pieces:
                return None
            ref = ref.storage.pieces[0].ref
        storage = ref.storage
        if storage.held is not None:
            return None
        return str(storage.path), storage.offset + storage.skip + ref.offset * ref.spec.dtype.bits // 8

    @property
    def ranges(self) -> list[Range] | None:
        """The runs of the source that are the output's bytes; None where these must be gathered, decoded or cast."""
        return None if self.casts else ranges_of(self.ref)


class _Seen(Struct, frozen=True):
    """A move that is still being put together."""

    view: View
    casts: tuple[DType, ...] = ()

    def map(self, change: Callable[[View], View]) -> _Seen:
        """Put the elements into other places."""
        return _Seen(change(self.view), self.casts)


class _Computed(Exception):
    """An output of which numbers change."""


def move_of(expr: Expr, tensors: Mapping[str, TensorRef]) -> Move | None:
    """Understand an expression as a move; None where it must be computed."""
    if isinstance(expr, Read):
        return Move(tensors[expr.key])
    try:
        found = _see(expr, tensors)
        return Move(found.view.ref(), found.casts)
    except (_Computed, TooManyPieces):
        return None


def _see(expr: Expr, tensors: Mapping[str, TensorRef]) -> _Seen:
    if isinstance(expr, Read):
        return _Seen(View.of(tensors[expr.key]))
    if not is_known(expr.spec.dtype):
        raise _Computed
    # To powers of two alone torch rounds in another way than ml_dtypes.
    match expr:
        case Constant(spec, value) if math.isfinite(value):  # others are counted when they are computed
            return _Seen(View.filled(spec, element(value, spec.dtype)))
        case Cast(source, dtype) if is_known(source.spec.dtype) and dtype is not DType.F8_E8M0:
            inner = _see(source, tensors)
            return _Seen(inner.view, (*inner.casts, dtype))
        case Take(source, dim, rows):
            return _see(source, tensors).map(lambda view: view.take(dim, rows))
        case Crop(source, block=block):
            inner = _see(source, tensors)
            return inner.map(lambda view: on_block(view, block, lambda part: crop(part, block), concatenate))
        case Pad(source, block=block, value=value, filler=None) if not isinstance(value, str) and math.isfinite(value):
            inner = _see(source, tensors)
            if not inner.casts:
                number = element(value, expr.spec.dtype)

                def added(part: View, axis: int, shape: Shape) -> View:
                    return View.filled(TensorSpec(shape, part.dtype), number)

                def grow(part: View) -> View:
                    return pad(part, block, added, concatenate)

                return _Seen(on_block(inner.view, block, grow, concatenate))
        case Rearrange(terms):
            parts = [_see(term.source, tensors) for term in terms]
            kinds = {(part.view.dtype, part.casts) for part in parts}
            if len(kinds) == 1:
                return _Seen(arrange(expr, [part.view for part in parts], concatenate), parts[0].casts)
    raise _Computed
