"""The layout language: `1 (p + (h w)) c` names the axes of a tensor, and sizes follow from its shape.

An axis is a name, a number, a product `(h w)` or a sum `(p + q)` of parts that lie end to end; `...` stands
for any axes. The notation of products and of `...` is einops' (Rogozhnikov, ICLR 2022).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ckptfix.errors import LayoutError


class Name(Struct, frozen=True):
    """An axis whose extent is a variable."""

    name: str

    def __str__(self) -> str:
        return self.name


class Number(Struct, frozen=True):
    """An axis of a fixed extent."""

    extent: int

    def __str__(self) -> str:
        return str(self.extent)


class Product(Struct, frozen=True):
    """Axes folded into one, the first varying slowest."""

    factors: tuple[Axis, ...]

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.factors))})"


class Sum(Struct, frozen=True):
    """Parts laid end to end along one axis."""

    parts: tuple[Axis, ...]

    def __str__(self) -> str:
        return f"({' + '.join(map(str, self.parts))})"


class Rest(Struct, frozen=True):
    """Any number of axes, none included."""

    def __str__(self) -> str:
        return "..."


Axis = Name | Number | Product | Sum | Rest
Axes = tuple[Axis, ...]

_TOKEN = re.compile(r"\s*(\.\.\.|[A-Za-z_]\w*|[0-9]+|[()+])")
_DEEPEST = 20
_LONGEST = 1000


def parse_tensor(text: str) -> Axes:
    """Read the axes of one tensor. Raises LayoutError, naming the place."""
    if len(text) > _LONGEST:
        raise LayoutError(f"a layout of {len(text)} characters", hint=f"at most {_LONGEST}")
    tokens: list[str] = []
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None:
            raise LayoutError(f"'{text}': '{text[position:].strip()[0]}' is no part of a layout")
        tokens.append(found[1])
        position = found.end()
    axes, rest = _read_axes(text, tokens, 0)
    if rest:
        raise LayoutError(f"'{text}': a stray '{rest[0]}'")
    names = [name for axis in axes for name in names_of(axis)]
    for name in names:
        if names.count(name) > 1:
            raise LayoutError(f"'{text}': the axis '{name}' stands twice")
    if sum(isinstance(axis, Rest) for axis in axes) > 1:
        raise LayoutError(f"'{text}': '...' may stand once")
    return axes


def _read_axes(text: str, tokens: list[str], depth: int) -> tuple[tuple[Axis, ...], list[str]]:
    axes: list[Axis] = []
    while tokens and tokens[0] not in ")+":
        token, *tokens = tokens
        if token == "(":
            if depth >= _DEEPEST:
                raise LayoutError(f"'{text}': brackets nest more than {_DEEPEST} deep")
            axis, tokens = _read_group(text, tokens, depth + 1)
            axes.append(axis)
        elif token == "...":
            if depth:
                raise LayoutError(f"'{text}': '...' cannot stand inside brackets")
            axes.append(Rest())
        else:
            axes.append(Number(int(token)) if token.isdecimal() else Name(token))
    return tuple(axes), tokens


def _read_group(text: str, tokens: list[str], depth: int) -> tuple[Axis, list[str]]:
    parts: list[Axis] = []
    while True:
        factors, tokens = _read_axes(text, tokens, depth)
        if not factors:
            raise LayoutError(f"'{text}': empty brackets")
        parts.append(factors[0] if len(factors) == 1 else Product(factors))
        if not tokens:
            raise LayoutError(f"'{text}': a bracket is not closed")
        token, *tokens = tokens
        if token == ")":
            return (parts[0] if len(parts) == 1 else Sum(tuple(parts))), tokens


def names_of(axis: Axis) -> Iterator[str]:
    """Give the names in an axis, left to right."""
    match axis:
        case Name(name):
            yield name
        case Product(children) | Sum(children):
            for child in children:
                yield from names_of(child)


def extent(axis: Axis, sizes: Mapping[str, int]) -> int | None:
    """Compute the extent of an axis; None where a size is unknown."""
    match axis:
        case Name(name):
            return sizes.get(name)
        case Number(number):
            return number
        case Product(children) | Sum(children):
            extents = [extent(child, sizes) for child in children]
            known = [number for number in extents if number is not None]
            if len(known) < len(extents):
                return None
            return math.prod(known) if isinstance(axis, Product) else sum(known)
    raise AssertionError("an ellipsis has no extent of its own")


def expand(axes: tuple[Axis, ...], rank: int) -> Axes:
    """Replace `...` by as many axes as a tensor of this rank needs. Raises LayoutError where it cannot fit."""
    places = [place for place, axis in enumerate(axes) if isinstance(axis, Rest)]
    missing = rank - (len(axes) - len(places))
    if missing < 0 or (missing > 0 and not places):
        raise LayoutError(f"'{text_of(axes)}' has {len(axes) - len(places)} axes, the tensor has {rank}")
    if not places:
        return axes
    filler = tuple(Name(f"...{number}") for number in range(missing))
    return axes[: places[0]] + filler + axes[places[0] + 1 :]


def text_of(axes: Sequence[Axis]) -> str:
    """Write a layout as text."""
    return " ".join(map(str, axes))
