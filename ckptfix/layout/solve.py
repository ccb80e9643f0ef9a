"""Find the extents of named axes from the shapes of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from ckptfix.errors import LayoutError
from ckptfix.layout.axes import Axes, Axis, Name, Product, Sum, extent, names_of
from ckptfix.tensors import Shape

Sizes = dict[str, int]


class Shaped(Struct, frozen=True):
    """The axes of one tensor, without `...`, and its shape. `what` names it in errors."""

    axes: Axes
    shape: Shape
    what: str = "the tensor"


def solve(axes: Axes, shape: Sequence[int], known: Mapping[str, int], equal: Sequence[str] = ()) -> Sizes:
    """Find the extent of every name from one shape. `axes` are expanded, `shape` holds extents.

    `equal` names axes that are taken as equal where a product leaves two of them undetermined: 196 = 14 x 14.
    Raises LayoutError where the numbers contradict each other, or leave an axis undetermined.
    """
    tensor = Shaped(axes, tuple(shape))
    sizes = _deduce_all([tensor], dict(known), ())
    if equal:
        sizes = _deduce_all([tensor], sizes, tuple(equal))
    _check_all([tensor], sizes)
    return sizes


def solve_layout(left: Sequence[Shaped], right: Sequence[Shaped], known: Mapping[str, int]) -> Sizes:
    """Find the extent of every name from the shapes of several tensors.

    `left` are the sources, `right` those results whose shape the target tells. In this order sizes come from
    `known`, from the sources, from the target, and, where the target tells nothing, from taking the parts of a sum
    as equal. Raises LayoutError where numbers contradict each other, or leave an axis undetermined.
    """
    try:
        sizes = _deduce_all(left, dict(known), ())
        sizes = _deduce_all([*left, *right], sizes, ())
        if not right:
            sizes = _deduce_all(left, sizes | _equal_parts(left, sizes), ())
        _check_all([*left, *right], sizes)
    except LayoutError as error:
        given = ", ".join(f"{name} = {size}" for name, size in known.items())
        mend = f"given {given}; correct sizes or the layout" if given else "correct the layout"
        raise LayoutError(error.message, hint=error.hint or mend) from error
    return sizes


def _deduce_all(tensors: Sequence[Shaped], known: Sizes, equal: tuple[str, ...]) -> Sizes:
    """Go over all axes until nothing new follows."""
    sizes = dict(known)
    before = -1
    while before != len(sizes):
        before = len(sizes)
        for tensor in tensors:
            for axis, total in zip(tensor.axes, tensor.shape, strict=True):
                sizes = _deduced(axis, total, sizes, equal, tensor.what)
    return sizes


def _equal_parts(tensors: Iterable[Shaped], sizes: Sizes) -> Sizes:
    """Give each part of a sum of which no part is known the same share."""
    shares: Sizes = {}
    for tensor in tensors:
        for axis, total in zip(tensor.axes, tensor.shape, strict=True):
            for inner, share in _sums(axis, total, sizes):
                parts = [part for part in inner.parts if isinstance(part, Name) and part.name not in sizes]
                if len(parts) == len(inner.parts):
                    if share % len(parts):
                        raise LayoutError(
                            f"{inner}: {share} does not fall into {len(parts)} equal parts",
                            hint=f"give one: sizes: {{{parts[0]}: ...}}",
                        )
                    shares |= {part.name: share // len(parts) for part in parts}
    return shares


def _sums(axis: Axis, total: int, sizes: Sizes) -> Iterable[tuple[Sum, int]]:
    """Give the sums in an axis whose own extent is known."""
    if isinstance(axis, Sum):
        yield axis, total
    elif isinstance(axis, Product):
        unknown = [factor for factor in axis.factors if extent(factor, sizes) is None]
        rest = math.prod(value for factor in axis.factors if (value := extent(factor, sizes)) is not None)
        if len(unknown) == 1 and rest and total % rest == 0:
            yield from _sums(unknown[0], total // rest, sizes)


def _check_all(tensors: Sequence[Shaped], sizes: Sizes) -> None:
    for tensor in tensors:
        for axis, total in zip(tensor.axes, tensor.shape, strict=True):
            value = extent(axis, sizes)
            if value is None:
                unknown = next(name for name in names_of(axis) if name not in sizes)
                raise LayoutError(
                    f"the size of '{unknown}' does not follow from {axis} = {total}",
                    hint=f"give it: sizes: {{{unknown}: ...}}",
                )
            if value != total:
                raise LayoutError(f"{axis} is {value}, {tensor.what} has {total} there")


def _deduced(axis: Axis, total: int, sizes: Sizes, equal: tuple[str, ...], what: str) -> Sizes:
    """Give the sizes with what this axis alone adds to them."""
    match axis:
        case Name(name):
            if sizes.get(name, total) != total:
                raise LayoutError(f"'{name}' is {sizes[name]}, {what} has {total} there")
            return sizes | {name: total}
        case Sum(parts):
            unknown = [part for part in parts if extent(part, sizes) is None]
            if len(unknown) == 1:
                others = sum(extent(part, sizes) or 0 for part in parts)
                if others > total:
                    raise LayoutError(f"without {unknown[0]}, {axis} is {others}; {what} has {total} there")
                return _deduced(unknown[0], total - others, sizes, equal, what)
        case Product(factors):
            unknown = [factor for factor in factors if extent(factor, sizes) is None]
            if unknown:
                return _deduced_factors(axis, unknown, total, sizes, equal, what)
    return sizes


def _deduced_factors(
    axis: Product, unknown: list[Axis], total: int, sizes: Sizes, equal: tuple[str, ...], what: str
) -> Sizes:
    divisor = math.prod(value for factor in axis.factors if (value := extent(factor, sizes)) is not None)
    if divisor == 0 or total % divisor:
        raise LayoutError(f"{axis}: {total} is not divisible by {divisor}")
    if len(unknown) == 1:
        return _deduced(unknown[0], total // divisor, sizes, equal, what)
    names = [factor.name for factor in unknown if isinstance(factor, Name) and factor.name in equal]
    if len(unknown) != 2 or len(names) != 2:
        return sizes
    root = math.isqrt(total // divisor)
    if root * root != total // divisor:
        raise LayoutError(
            f"{axis}: {total // divisor} is not a square, so {names[0]} and {names[1]} are unknown",
            hint=f"give one: sizes: {{{names[0]}: ...}}",
        )
    return sizes | dict.fromkeys(names, root)
