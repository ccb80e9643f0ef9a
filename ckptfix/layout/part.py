"""Find the part of a tensor in which listed axes lie: inside a sum, it is the one term that has them all."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ckptfix.errors import LayoutError
from ckptfix.layout.axes import Axes, Axis, Product, Sum, extent, names_of
from ckptfix.layout.solve import Sizes


class Part(Struct, frozen=True):
    """A part of a tensor: it begins at `start` along dimension `dim`, and is whole along all others.

    `axes` are its dimensions, `atoms` the same unfolded: no product among them.
    """

    dim: int
    start: int
    axes: Axes
    atoms: Axes


def find_part(axes: Axes, sizes: Sizes, listed: Sequence[str]) -> Part:
    """Find the part that holds all listed axes. Raises LayoutError where they lie in several parts."""
    sums = [dim for dim, axis in enumerate(axes) if isinstance(axis, Sum) and _mentions(axis, listed)]
    if len(sums) > 1:
        raise LayoutError("the axes to resize lie in two sums", hint="resize one after the other")
    if sums and not all(name in names_of(axes[sums[0]]) for name in listed):
        raise LayoutError(
            f"only a part of {axes[sums[0]]} changes, so no axis beside it can", hint="resize one after the other"
        )
    dim = sums[0] if sums else 0
    start, core = _descend(axes[dim], sizes, listed) if sums else (0, axes[0])
    part = (*axes[:dim], core, *axes[dim + 1 :])
    return Part(dim, start, part, tuple(atom for axis in part for atom in _atoms(axis, listed)))


def _mentions(axis: Axis, names: Sequence[str]) -> bool:
    return any(name in names for name in names_of(axis))


def _descend(axis: Axis, sizes: Sizes, listed: Sequence[str]) -> tuple[int, Axis]:
    """Go down the sums to the one term that holds all listed axes; give its start and itself."""
    start = 0
    while isinstance(axis, Sum):
        hits = [part for part in axis.parts if _mentions(part, listed)]
        if len(hits) > 1:
            raise LayoutError(f"{axis}: two parts change", hint="resize one after the other")
        position = axis.parts.index(hits[0])
        start += sum(extent(part, sizes) or 0 for part in axis.parts[:position])
        axis = hits[0]
    return start, axis


def _atoms(axis: Axis, listed: Sequence[str]) -> list[Axis]:
    if isinstance(axis, Product):
        return [atom for factor in axis.factors for atom in _atoms(factor, listed)]
    if isinstance(axis, Sum) and _mentions(axis, listed):
        raise LayoutError(f"{axis}: a sum inside a product cannot be resized")
    return [axis]
