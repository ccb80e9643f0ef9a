"""Rearrange tensors number by number: each place of the output says by its coordinates where its number comes from.

The second path to what `execute.arrange` does with whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from ckptfix.expr import Rearrange
from ckptfix.layout import Axes, Axis, Name, Number, Product, Sum, blocks, extent

_CHUNK = 1 << 20
"""Numbers of the output that are looked up at once."""


def rearrange(expr: Rearrange, tensors: Sequence[Tensor]) -> Tensor:
    """Make the output from the tensors of all terms."""
    sizes = dict(expr.sizes)
    output = torch.empty(expr.spec.numel, dtype=tensors[0].dtype)
    for start in range(0, expr.spec.numel, _CHUNK):
        places = torch.arange(start, min(start + _CHUNK, expr.spec.numel))
        at = torch.unravel_index(places, expr.spec.shape) if expr.spec.shape else ()
        for inside, coordinates in _choices(expr.axes, at, sizes):
            known = coordinates | {name: torch.tensor(place) for name, place in expr.index}
            for term, tensor in zip(expr.terms, tensors, strict=True):
                _copy(output[start:], inside, known, term.axes, dict(term.index), tensor, sizes)
    return output.reshape(expr.spec.shape)


def _copy(
    output: Tensor,
    inside: Tensor,
    known: Mapping[str, Tensor],
    axes: Axes,
    places: Mapping[str, int],
    tensor: Tensor,
    sizes: Mapping[str, int],
) -> None:
    """Fill the places of the output that come from one tensor."""
    matching = [block for block in blocks(axes) if block | places.keys() <= known.keys()]
    for block in matching:
        here = inside.clone()
        for name, place in places.items():
            here &= known[name] == place
        flat = torch.zeros(inside.shape, dtype=torch.int64)
        for axis in axes:
            flat = flat * (extent(axis, sizes) or 0) + _fold(axis, known, block, sizes)
        output[: len(inside)][here] = tensor.reshape(-1)[flat.expand(inside.shape)[here]]


def _fold(axis: Axis, known: Mapping[str, Tensor], block: frozenset[str], sizes: Mapping[str, int]) -> Tensor | int:
    """Give the coordinate along one axis of a source."""
    match axis:
        case Name(name):
            return known[name]
        case Product(factors):
            position: Tensor | int = 0
            for factor in factors:
                position = position * (extent(factor, sizes) or 0) + _fold(factor, known, block, sizes)
            return position
        case Sum(parts):
            start = 0
            for part in parts:
                if any(names <= block for names in blocks((part,))):
                    return start + _fold(part, known, block, sizes)
                start += extent(part, sizes) or 0
    assert isinstance(axis, Number), axis
    return 0


def _choices(axes: Axes, at: Sequence[Tensor], sizes: Mapping[str, int]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """For each choice of parts, give which places lie inside, and their coordinates along every name."""
    if not axes:
        yield torch.ones(1, dtype=torch.bool), {}
        return
    for choice in product(*(list(_unfold(axis, place, sizes)) for axis, place in zip(axes, at, strict=True))):
        inside = torch.ones(at[0].shape, dtype=torch.bool)
        coordinates: dict[str, Tensor] = {}
        for here, found in choice:
            inside = inside & here
            coordinates |= found
        yield inside, coordinates


def _unfold(axis: Axis, at: Tensor, sizes: Mapping[str, int]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    match axis:
        case Name(name):
            yield torch.ones(at.shape, dtype=torch.bool), {name: at}
        case Number():
            yield torch.ones(at.shape, dtype=torch.bool), {}
        case Sum(parts):
            start = 0
            for part in parts:
                length = extent(part, sizes) or 0
                here = (at >= start) & (at < start + length)
                for inner, found in _unfold(part, (at - start).clamp(0, max(length - 1, 0)), sizes):
                    yield here & inner, found
                start += length
        case Product(factors):
            places: list[Tensor] = []
            rest = at
            for factor in reversed(factors):
                places.append(rest % max(extent(factor, sizes) or 0, 1))
                rest = rest // max(extent(factor, sizes) or 0, 1)
            parts_of = [list(_unfold(*pair, sizes)) for pair in zip(factors, reversed(places), strict=True)]
            for choice in product(*parts_of):
                here = torch.ones(at.shape, dtype=torch.bool)
                coordinates: dict[str, Tensor] = {}
                for inner, found in choice:
                    here = here & inner
                    coordinates |= found
                yield here, coordinates
