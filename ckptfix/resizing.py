"""What a resize changes of a tensor, in numbers, and whether a mode can do it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ckptfix.errors import RuleError
from ckptfix.expr import Block
from ckptfix.layout import Axes, Sizes, extent
from ckptfix.layout.part import find_part
from ckptfix.tensors import Shape

_MOST_CELLS = 64 * 64
"""The largest patch whose resizing is inverted, in memory and time that grow with the square and cube of it."""
_WIDEST = 1023
"""The largest extent of a table of relative positions, over which the powers of 1.5 are far from overflow."""


def change_of(names: Iterable[str], have: Sizes, want: Sizes) -> str:
    """Write the change as text: `h from 14 to 24, w from 14 to 24`."""
    return ", ".join(f"{name} from {have[name]} to {want[name]}" for name in names)


def block_of(axes: Axes, have: Sizes, want: Sizes, listed: tuple[str, ...]) -> Block:
    """Say in numbers which part changes, and where the listed axes lie in it. Raises LayoutError."""
    part = find_part(axes, have, listed)
    names = [str(atom) for atom in part.atoms]
    return Block(
        dim=part.dim,
        start=part.start,
        stop=part.start + (extent(part.axes[part.dim], have) or 0),
        inner=shape_of(part.atoms, have),
        axes=tuple(names.index(name) for name in listed),
        sizes=tuple(want[name] for name in listed),
        shape=shape_of(part.axes, want),
    )


def shape_of(axes: Axes, sizes: Sizes) -> Shape:
    """Give the extents of axes whose sizes are all known."""
    return tuple(extent(axis, sizes) or 0 for axis in axes)


def check_extents(mode: str, block: Block, change: str) -> None:
    """Hold a mode that computes to extents that it is defined for. Raises RuleError."""
    if 0 in (*block.inner, *block.sizes):
        raise RuleError(f"{mode} cannot resize {change}")
    old = [block.inner[axis] for axis in block.axes]
    if mode == "pinv" and max(math.prod(old), math.prod(block.sizes)) > _MOST_CELLS:
        raise RuleError(f"pinv cannot resize {change}", hint=f"it is for patch kernels of at most {_MOST_CELLS} cells")
    if mode == "geometric" and not all(
        3 <= before <= _WIDEST and after <= _WIDEST and before % 2 and after % 2
        for before, after in zip(old, block.sizes, strict=True)
    ):
        raise RuleError(
            f"geometric cannot resize {change}",
            hint=f"a window of n has 2n - 1 relative positions: an odd number, 3 to {_WIDEST}",
        )
