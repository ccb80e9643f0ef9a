"""Put the blocks of tensors into other places, as a layout says: those of torch, or views of what is not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, Self, TypeVar

from ckptfix.expr import Rearrange
from ckptfix.layout import Axes, Axis, Block, Name, Product, Sum, extent
from ckptfix.tensors import Shape


class Arrangeable(Protocol):
    """What tensors of torch and views have in common."""

    @property
    def shape(self) -> Shape: ...
    def reshape(self, shape: Sequence[int], /) -> Self: ...
    def permute(self, dims: tuple[int, ...], /) -> Self: ...
    def expand(self, size: Sequence[int], /) -> Self: ...
    def narrow(self, dim: int, start: int, length: int) -> Self: ...
    def select(self, dim: int, index: int) -> Self: ...
    def unsqueeze(self, dim: int) -> Self: ...


T = TypeVar("T", bound=Arrangeable)
Concatenate = Callable[[Sequence[T], int], T]
Named = tuple[tuple[str, ...], T]
"""A block: the names of its axes, in order, and its values."""


def arrange(expr: Rearrange, tensors: Sequence[T], concatenate: Concatenate[T]) -> T:
    """Make one output of the tensors of all terms, in the order of the terms."""
    sizes = dict(expr.sizes)
    found: dict[Block, list[tuple[tuple[int, ...], Named[T]]]] = {}
    for term, tensor in zip(expr.terms, tensors, strict=True):
        places = dict(sorted(term.index))
        for names, block in take_apart(tensor, term.axes, sizes):
            named = ((*places, *names), block)
            found.setdefault(frozenset(named[0]), []).append((tuple(places.values()), named))
    blocks = [_stack(members, sizes, concatenate) for members in found.values()]
    for name, place in expr.index:
        blocks = [_select(block, name, place) for block in blocks]
    found_blocks = {frozenset(names): (names, tensor) for names, tensor in blocks}
    return put_together(expr.axes, found_blocks, sizes, concatenate)


def take_apart(tensor: T, axes: Axes, sizes: Mapping[str, int]) -> Iterator[Named[T]]:
    """Give each block of a tensor."""
    flat = _flatten(axes)
    tensor = tensor.reshape(_shape(flat, sizes))
    at = _first_sum(flat)
    if at is None:
        names = tuple(axis.name for axis in flat if isinstance(axis, Name))
        yield names, tensor.reshape([sizes[name] for name in names])
        return
    dim, parts = at
    start = 0
    for part in parts.parts:
        (length,) = _shape((part,), sizes)
        yield from take_apart(tensor.narrow(dim, start, length), (*flat[:dim], part, *flat[dim + 1 :]), sizes)
        start += length


def put_together(
    axes: Axes, blocks: Mapping[Block, Named[T]], sizes: Mapping[str, int], concatenate: Concatenate[T]
) -> T:
    """Make a tensor of its blocks. Axes that no block has repeat what is there."""
    flat = _flatten(axes)
    at = _first_sum(flat)
    if at is not None:
        dim, parts = at
        around = flat[:dim], flat[dim + 1 :]
        pieces = [put_together((*around[0], part, *around[1]), blocks, sizes, concatenate) for part in parts.parts]
        return concatenate(pieces, dim).reshape(_shape(axes, sizes))
    known = frozenset().union(*blocks)
    wanted = [axis.name for axis in flat if isinstance(axis, Name)]
    names, tensor = blocks[frozenset(wanted) & known]
    kept = [name for name in wanted if name in known]
    tensor = tensor.permute(tuple(names.index(name) for name in kept))
    tensor = tensor.reshape([sizes[name] if name in known else 1 for name in wanted])
    return tensor.expand([sizes[name] for name in wanted]).reshape(_shape(axes, sizes))


def _stack(
    members: list[tuple[tuple[int, ...], Named[T]]], sizes: Mapping[str, int], concatenate: Concatenate[T]
) -> Named[T]:
    """Lay tensors that differ in their places side by side along new axes, in the order of the places."""
    members = sorted(members, key=lambda member: member[0])
    places, (names, first) = members[0]
    if not places:
        return names, first
    stacked = concatenate([tensor.unsqueeze(0) for _, (_, tensor) in members], 0)
    return names, stacked.reshape([sizes[name] for name in names])


def _select(block: Named[T], name: str, place: int) -> Named[T]:
    names, tensor = block
    if name not in names:
        return block
    return tuple(other for other in names if other != name), tensor.select(names.index(name), place)


def _flatten(axes: Sequence[Axis]) -> Axes:
    """Write products out."""
    flat: list[Axis] = []
    for axis in axes:
        flat += _flatten(axis.factors) if isinstance(axis, Product) else [axis]
    return tuple(flat)


def _first_sum(axes: Axes) -> tuple[int, Sum] | None:
    return next(((dim, axis) for dim, axis in enumerate(axes) if isinstance(axis, Sum)), None)


def _shape(axes: Sequence[Axis], sizes: Mapping[str, int]) -> list[int]:
    extents = [extent(axis, sizes) for axis in axes]
    assert None not in extents, (axes, sizes)
    return [number for number in extents if number is not None]
