"""Write how pieces lie in a whole as a layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.errors import LayoutError
from ckptfix.inference.example.embed import stride_of
from ckptfix.inference.example.parts import Family, Part, Placed, find_families
from ckptfix.inference.link import Link, Term
from ckptfix.layout import (
    Axes,
    Axis,
    Layout,
    Name,
    Number,
    Product,
    Rest,
    Shaped,
    Sum,
    expand,
    names_of,
    solve_layout,
    text_of,
)
from ckptfix.tensors import Shape

_PLAIN = {1: ("n",), 2: ("o", "i"), 4: ("o", "i", "h", "w")}
_OUTER = ("h", "r", "g", "s", "t", "u", "v")
_LETTERS = "abcdefgjklmnpqxyz"
_WORD = re.compile(r"[A-Za-z]+")

Direction = Literal["split", "fuse"]
"""Whether the whole is the source, or the target."""
Halves = tuple[str, str]


class Names(Struct):
    """Hands out names for axes, each once, and keeps their extents."""

    extents: dict[str, int] = field(default_factory=dict)

    def new(self, extent: int, wishes: Sequence[str]) -> str:
        """Take the first wish that is free."""
        name = next(name for name in chain(wishes, _LETTERS, map("a{}".format, count())) if name not in self.extents)
        self.extents[name] = extent
        return name


class Item(Struct, frozen=True):
    """What some families have in common along one axis of the whole: from where, and by which parts."""

    start: int
    members: tuple[tuple[int, Part], ...]
    """The families, by their numbers, each with one of its parts along the axis."""

    def parts(self, family: int) -> list[Part]:
        """Give the parts of one family, slowest first."""
        return sorted((part for other, part in self.members if other == family), key=lambda part: -part.whole_step)


def write_link(direction: Direction, key: str, whole: Shape, pieces: Sequence[Placed]) -> Link | None:
    """Write the link between a whole and its pieces; None where the layout language has no word for it."""
    families = find_families(whole, pieces)
    if families is None:
        return None
    writer = _Writer(whole, families)
    axes = writer.whole_axes()
    if axes is None:
        return None
    found = [writer.family_axes(number) for number in range(len(families))]
    if None in found:
        return None
    left, right = [axes], [axes for axes in found if axes is not None]
    one, many = (
        Side((Term.of(key),), left, [whole]),
        Side(tuple(family.term for family in families), right, [family.shape for family in families]),
    )
    sides = (one, many) if direction == "split" else (many, one)
    if left == right and [whole] == many.shapes and not many.stacked:
        return Link(sides[0].terms, sides[1].terms)
    return _link(*sides, writer.names.extents)


class _Writer:
    """Names the parts of a whole. `labels` gives the name of each part of each family, two for swapped halves."""

    def __init__(self, whole: Shape, families: Sequence[Family]) -> None:
        self.whole = whole
        self.families = families
        self.names = Names()
        self.labels: dict[tuple[int, Part], str | Halves] = {}
        for family in families:
            if family.term.axis:
                self.names.extents.setdefault(family.term.axis, len(family.term.keys))

    def whole_axes(self) -> Axes | None:
        """Name every axis of the whole."""
        axes = [self._axis(axis, extent) for axis, extent in enumerate(self.whole)]
        return None if None in axes else tuple(axis for axis in axes if axis is not None)

    def _axis(self, axis: int, extent: int) -> Axis | None:
        """Build the tree of one axis, from the different ways in which families lie along it."""
        ways: dict[tuple[int, tuple[tuple[int, int], ...]], list[tuple[int, Part]]] = {}
        for number, family in enumerate(self.families):
            parts = [part for part in family.parts if part.whole_axis == axis]
            way = family.starts[axis], tuple(sorted((part.whole_step, part.size) for part in parts))
            ways.setdefault(way, []).extend((number, part) for part in parts)
        items = [Item(start, tuple(members)) for (start, _), members in sorted(ways.items(), key=lambda way: way[0][0])]
        if extent == 1:
            return Number(1)
        if any(not item.members for item in items):
            return None  # single places that no counting key names
        wish = _PLAIN.get(len(self.whole), ())
        return self._tree(items, extent, wish[axis : axis + 1])

    def _tree(self, items: Sequence[Item], extent: int, wishes: Sequence[str]) -> Axis | None:
        if extent == 1 and len(items) == 1:
            return Number(1)
        outer = [_outermost(item, extent) for item in items]
        sizes = {next(iter(parts.values())).size for parts in outer if parts}
        if all(outer) and len(sizes) == 1:
            return self._product(items, outer, extent, wishes)
        return self._sum(items, extent) if len(items) > 1 else None

    def _product(
        self, items: Sequence[Item], outer: Sequence[Mapping[int, Part]], extent: int, wishes: Sequence[str]
    ) -> Axis | None:
        """Take off the slowest digit, which all items share."""
        any_part = next(iter(outer[0].values()))
        name = self._label(any_part, outer, wishes if any_part.size == extent else _OUTER)
        if any_part.size == extent:
            return name
        inner = [
            Item(item.start, tuple(member for member in item.members if member[1] is not parts.get(member[0])))
            for item, parts in zip(items, outer, strict=True)
        ]
        rest = self._tree(inner, extent // any_part.size, ("d",))
        if rest is None:
            return None
        return Product((name, *(rest.factors if isinstance(rest, Product) else (rest,))))

    def _label(self, part: Part, outer: Sequence[Mapping[int, Part]], wishes: Sequence[str]) -> Axis:
        label: str | Halves
        if part.swapped:
            label = (self.names.new(part.size // 2, "ab"), self.names.new(part.size // 2, "ab"))
        elif part.piece_axis is None:
            label = "e"
        else:
            label = self.names.new(part.size, wishes)
        for parts in outer:
            self.labels |= dict.fromkeys(parts.items(), label)
        return Sum((Name(label[1]), Name(label[0]))) if isinstance(label, tuple) else Name(label)

    def _sum(self, items: Sequence[Item], extent: int) -> Axis | None:
        """Lay items end to end."""
        edges = [item.start % extent for item in items]
        order = sorted(range(len(items)), key=edges.__getitem__)
        stops = [edges[number] for number in order[1:]] + [extent]
        if edges[order[0]] != 0:
            return None
        trees = []
        for number, stop in zip(order, stops, strict=True):
            item, length = items[number], stop - edges[number]
            trees.append(self._tree([Item(0, item.members)], length, self._wishes(item)))
        return None if None in trees else Sum(tuple(tree for tree in trees if tree is not None))

    def _wishes(self, item: Item) -> list[str]:
        """Name a part after what tells its key from the others: `q` for `q_proj`."""
        own = {number for number, _ in item.members}
        mine = [word for number in sorted(own) for word in _words(self.families[number])]
        others = {word for number, family in enumerate(self.families) if number not in own for word in _words(family)}
        return [word.lower() for word in mine if word not in others]

    def family_axes(self, number: int) -> Axes | None:
        """Write the axes of one family; the axis that its keys count along stands first."""
        family = self.families[number]
        axes: list[Axis] = [Name(family.term.axis)] if family.term.axis else []
        for axis, extent in enumerate(family.shape):
            parts = sorted(
                (part for part in family.parts if part.piece_axis == axis), key=lambda part: -part.piece_step
            )
            if stride_of((0, *(part.size for part in parts)), 0) != extent:
                return None
            factors = tuple(self._factor(number, part) for part in parts)
            axes.append(Number(1) if not factors else factors[0] if len(factors) == 1 else Product(factors))
        return tuple(axes)

    def _factor(self, number: int, part: Part) -> Axis:
        if (number, part) not in self.labels:  # a repetition, which the whole does not have
            self.labels[number, part] = self.names.new(part.size, ("g", "r", "s"))
        label = self.labels[number, part]
        return Sum((Name(label[0]), Name(label[1]))) if isinstance(label, tuple) else Name(label)


def _outermost(item: Item, extent: int) -> dict[int, Part]:
    """Give the part of each family that divides the extent evenly; nothing where a family has none."""
    families = dict.fromkeys(number for number, _ in item.members)
    first = {number: item.parts(number)[0] for number in families}
    fits = all(part.whole_step * part.size == extent for part in first.values())
    return first if fits and len({part.size for part in first.values()}) == 1 else {}


def _words(family: Family) -> list[str]:
    return _WORD.findall(family.term.keys[0])


class Side(Struct, frozen=True):
    """The tensors on one side of a layout: whose they are, their axes and their shapes."""

    terms: tuple[Term, ...]
    axes: list[Axes]
    shapes: list[Shape]

    @property
    def stacked(self) -> dict[str, int]:
        """The axes that keys count along."""
        return {term.axis: len(term.keys) for term in self.terms if term.axis}

    def shaped(self) -> list[Shaped]:
        """Give the axes of each tensor of its own."""
        return [
            Shaped(expand(tuple(axis for axis in axes if str(axis) not in self.stacked), len(shape)), shape)
            for axes, shape in zip(self.axes, self.shapes, strict=True)
        ]


def _link(have: Side, want: Side, extents: Mapping[str, int]) -> Link | None:
    stacked = have.stacked | want.stacked
    left, right = _with_rest(have.axes, want.axes, bool(stacked))
    have, want = replace(have, axes=left), replace(want, axes=right)
    layout = f"{', '.join(map(text_of, left))} -> {', '.join(map(text_of, right))}"
    try:
        Layout.parse(layout)
    except LayoutError:
        return None
    sizes = _needed_sizes(have.shaped(), want.shaped(), stacked, extents)
    return Link(have.terms, want.terms, layout, sizes) if sizes is not None else None


def _with_rest(left: list[Axes], right: list[Axes], stacked: bool) -> tuple[list[Axes], list[Axes]]:
    """Write `...` for what follows the first axis of the whole, where all tensors have it alike."""
    tensors = [*left, *right]
    if not all(tensors):
        return left, right
    whole = left[0] if len(left) == 1 else right[0]
    rest = whole[1:]
    pieces = [axes for axes in tensors if axes is not whole]
    structured = stacked or not isinstance(whole[0], Name | Number)
    used = [name for axis in rest for name in names_of(axis)]
    heads = [axes[: len(axes) - len(rest)] for axes in pieces]
    alike = all(axes[len(axes) - len(rest) :] == rest and head for axes, head in zip(pieces, heads, strict=True))
    plain = all(isinstance(axis, Name) for axis in rest)
    clash = any(name in used for head in heads for axis in head for name in names_of(axis))
    if not structured or not alike or not plain or clash:
        return left, right
    short = {id(whole): (*whole[:1], Rest()), **{id(a): (*h, Rest()) for a, h in zip(pieces, heads, strict=True)}}
    return [short[id(axes)] for axes in left], [short[id(axes)] for axes in right]


def _needed_sizes(
    left: Sequence[Shaped], right: Sequence[Shaped], stacked: Mapping[str, int], extents: Mapping[str, int]
) -> dict[str, int] | None:
    """Give the fewest extents, as they come, without which the shapes do not tell all of them."""
    given: dict[str, int] = {}
    for name in ("", *_factors(left, right)):
        if name:
            given[name] = extents[name]
        try:
            found = solve_layout(left, right, {**given, **stacked})
        except LayoutError:
            continue
        if all(found.get(other, size) == size for other, size in extents.items()):
            return given
    return None


def _factors(left: Sequence[Shaped], right: Sequence[Shaped]) -> Iterator[str]:
    """Give the names that stand inside of brackets."""
    inside = (axis for shaped in (*left, *right) for axis in shaped.axes if isinstance(axis, Product | Sum))
    yield from dict.fromkeys(name for axis in inside for name in names_of(axis))
