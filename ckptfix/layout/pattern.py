"""Layouts of several tensors: `(q+k+v) ... -> q ..., k ..., v ...` says which part goes where.

A tensor falls apart into blocks, one for each choice of parts of its sums; a block is known by the names of its axes.
A layout is sound where every block of the left side stands exactly once on the right side: so it loses nothing, and
swapping its sides is its inverse. Axes that stand on the right side alone repeat what is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import product

from msgspec import Struct

from ckptfix.errors import LayoutError
from ckptfix.layout.axes import Axis, Name, Number, Product, Rest, Sum, names_of, parse_tensor, text_of

Axes = tuple[Axis, ...]
Block = frozenset[str]


class Layout(Struct, frozen=True, dict=True):
    """The axes of the tensors on both sides. Made by `parse`, which checks that it is sound."""

    left: tuple[Axes, ...]
    right: tuple[Axes, ...]

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read `a, b -> c`. Raises LayoutError, naming the tensor or axis that is wrong."""
        sides = text.split("->")
        if len(sides) != 2:
            raise LayoutError(f"'{text}' has {len(sides) - 1} arrows", hint="write present axes -> new axes")
        left, right = (tuple(parse_tensor(part) for part in side.split(",")) for side in sides)
        layout = cls(left, right)
        layout._check(text)
        return layout

    @cached_property
    def repeated(self) -> frozenset[str]:
        """The axes of the right side that the left side lacks."""
        return _names(self.right) - _names(self.left)

    def inverse(self) -> Layout | None:
        """Swap the sides; None where an axis repeats, since then one of many equal parts would be chosen."""
        return None if self.repeated else Layout(self.right, self.left)

    def __str__(self) -> str:
        return " -> ".join(", ".join(map(text_of, side)) for side in (self.left, self.right))

    def _check(self, text: str) -> None:
        have = [block for axes in self.left for block in blocks(axes)]
        made = [block - self.repeated for axes in self.right for block in blocks(axes)]
        for side, found in (("left", have), ("right", made)):
            twice = [block for block, count in Counter(found).items() if count > 1]
            if twice:
                raise LayoutError(
                    f"'{text}': the part {_show(twice[0])} stands twice on the {side}",
                    hint="parts are told apart by the names of their axes",
                )
        for block in have:
            if block not in made:
                raise LayoutError(
                    f"'{text}': the part {_show(block)} goes nowhere", hint="drop it by a rule of its own"
                )
        for block in made:
            if block not in have:
                raise LayoutError(f"'{text}': the part {_show(block)} comes from nowhere")
        rests = {any(isinstance(axis, Rest) for axis in axes) for axes in (*self.left, *self.right)}
        if len(rests) > 1:
            raise LayoutError(f"'{text}': '...' must stand in every tensor or in none")
        for axes in (*self.left, *self.right):
            for number in _numbers(axes):
                if number.extent != 1:
                    raise LayoutError(f"'{text}': the axis {number} has no name", hint="name it and give its size")


def blocks(axes: Axes) -> Iterator[Block]:
    """Give the blocks of a tensor, first part first."""
    for choice in product(*(_choices(axis) for axis in axes)):
        yield frozenset(name for names in choice for name in names)


def _choices(axis: Axis) -> list[tuple[str, ...]]:
    match axis:
        case Name(name):
            return [(name,)]
        case Number():
            return [()]
        case Rest():
            return [("...",)]
        case Sum(parts):
            return [choice for part in parts for choice in _choices(part)]
        case Product(factors):
            return [sum(choice, ()) for choice in product(*(_choices(factor) for factor in factors))]
    raise AssertionError(axis)


def _names(side: tuple[Axes, ...]) -> frozenset[str]:
    return frozenset(name for axes in side for axis in axes for name in names_of(axis))


def _numbers(axes: Axes) -> Iterator[Number]:
    for axis in axes:
        match axis:
            case Number():
                yield axis
            case Product(children) | Sum(children):
                yield from _numbers(children)


def _show(block: Block) -> str:
    return f"({' '.join(sorted(block))})" if block else "of no axis"
