"""Lines: patterns with what they make, as they stand in a rule, and what each is meant for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache

from msgspec import Struct

BRACES = re.compile(r"\{([^{}]*)\}")
"""A placeholder of a pattern or an expression of a template."""
_OWN_NAME = re.compile(r"_[ntv]\d+|_r\b")
"""Names that stand until the line gets readable ones: numbers, texts, look-up tables, and a run of segments."""
_LETTER = re.compile(r"[A-Za-z]")
_INNER_RUN = re.compile(r".+\{_r:\*\*\}.+")
_PLACEHOLDER = re.compile(r"_([nt])\d+")

_LINE_PRICE = 14
_TEXT_PRICE = 3
_RUN_PRICE = 14
_VAGUE_PRICE = 20
_CHOICE_PRICE = 2
_INNER_RUN_PRICE = 12
"""What a run costs more between two texts, where it hides how deep a key lies."""
_WILDCARD_PRICE = 10


class Line(Struct, frozen=True, dict=True):
    """Patterns of a rule and the templates of what they make. `covers` has a bit for each link that it is meant for.

    Placeholders are `_n0`, `_n1`, ... for numbers, `_t0`, ... for texts and `_r` for a run of segments; a look-up is
    `_v0[_n0]`. Any other name is an axis to stack along.
    """

    patterns: tuple[str, ...]
    templates: tuple[str, ...]
    covers: int

    @property
    def sides(self) -> tuple[str, ...]:
        """The patterns, then the templates."""
        return self.patterns + self.templates

    @cached_property
    def price(self) -> int:
        """What the line costs a reader: its letters, and something for each placeholder that is less plain."""
        names = own_names(self.patterns)
        texts = sum(name.startswith("_t") for name in names)
        letters = sum(len(_OWN_NAME.sub("x", side)) for side in self.sides)
        vague = texts and any(not _LETTER.search(BRACES.sub("", pattern)) for pattern in self.patterns)
        choices = sum(pattern.count("|") for pattern in self.patterns)
        wildcards = sum(BRACES.sub("", pattern).count("*") for pattern in self.patterns)
        hidden = any(map(_INNER_RUN.fullmatch, self.patterns))
        wide = _RUN_PRICE * ("_r" in names) + _INNER_RUN_PRICE * hidden + _VAGUE_PRICE * bool(vague)
        return (
            _LINE_PRICE + letters + _TEXT_PRICE * texts + _CHOICE_PRICE * choices + _WILDCARD_PRICE * wildcards + wide
        )

    def with_sides(self, sides: tuple[str, ...], covers: int) -> Line:
        """Give another line of the same form, its placeholders counted anew."""
        sides = _renumbered(sides)
        return Line(sides[: len(self.patterns)], sides[len(self.patterns) :], covers)


@lru_cache(maxsize=1 << 16)
def own_names(sides: tuple[str, ...]) -> tuple[str, ...]:
    """List the names within braces that are still to be replaced, in order of first use."""
    return tuple(
        dict.fromkeys(name for side in sides for braces in BRACES.findall(side) for name in _OWN_NAME.findall(braces))
    )


def with_names(side: str, names: dict[str, str]) -> str:
    """Replace names within braces."""
    return BRACES.sub(lambda braces: _OWN_NAME.sub(lambda own: names.get(own[0], own[0]), braces[0]), side)


def union_of(lines: Iterable[Line]) -> int:
    """Give the links that lines cover together."""
    bits = 0
    for line in lines:
        bits |= line.covers
    return bits


def bits_of(mask: int) -> Iterator[int]:
    """Give the places of the bits that are set, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _renumbered(sides: tuple[str, ...]) -> tuple[str, ...]:
    counts = {"n": 0, "t": 0}
    names: dict[str, str] = {}
    for name in own_names(sides):
        found = _PLACEHOLDER.fullmatch(name)
        if found:
            names[name] = f"_{found[1]}{counts[found[1]]}"
            counts[found[1]] += 1
    return tuple(with_names(side, names) for side in sides)
