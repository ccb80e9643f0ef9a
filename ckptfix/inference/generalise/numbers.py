"""Find what the numbers in keys follow from: `layer3.1` -> `stages.2.1` is `layer{i}.{j}` -> `stages.{i-1}.{j}`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import product

from msgspec import Struct

from ckptfix.inference.generalise.line import Line, own_names
from ckptfix.inference.generalise.tables import Tables

_TOKEN = re.compile(r"\{\w+\}|(?<![0-9])[0-9]{1,9}(?![0-9])")
_OWN_NUMBER = re.compile(r"\{(_n\d+)\}")
_LARGEST_STRIDE = 8
_DIVISORS = (2, 3, 4)
_TWO_TO_ONE = ((2, 0),)
_FEWEST_VALUES = 3
"""Values that a product or a quotient explains; to fewer many would fit by chance."""
_FEWEST_ENTRIES = 3
"""Entries that a look-up table needs; two are better written out as two lines."""
_MOST_VALUES = 64
"""Values of one number for which a line may be written each."""
_DEEPEST = 3

Column = tuple[str, ...]


class Record(Struct, frozen=True):
    """The keys of one link, each apart from its numbers: `texts` stand around `numbers`."""

    bit: int
    texts: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[str, ...], ...]


class Number(Struct, frozen=True):
    """A number of the source: its placeholder, and its values in all links."""

    name: str
    values: Column


def read_record(bit: int, sides: Iterable[str]) -> Record:
    """Take the keys of a link apart. Placeholders in braces, of axes to stack along, are text."""
    texts: list[tuple[str, ...]] = []
    numbers: list[tuple[str, ...]] = []
    for side in sides:
        found = [token for token in _TOKEN.finditer(side) if not token[0].startswith("{")]
        bounds = [0, *(edge for token in found for edge in token.span()), len(side)]
        texts.append(tuple(side[start:stop] for start, stop in zip(bounds[::2], bounds[1::2], strict=True)))
        numbers.append(tuple(token[0] for token in found))
    return Record(bit, tuple(texts), tuple(numbers))


def number_lines(records: Iterable[Record], patterns: int, tables: Tables) -> list[Line]:
    """Write lines that together cover all links whose keys differ in numbers alone, and shorter ones beside them.

    `patterns` is how many sides of a record are patterns. Links that no line of several explains have none.
    """
    classes: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        classes[record.texts].append(record)
    lines = [
        line
        for members in sorted(classes.values(), key=len, reverse=True)
        for line in _lines(members, patterns, tables, 0)
    ]
    return list({line.sides: line for line in lines}.values())


def split_line(line: Line, records: Sequence[Record], patterns: int, tables: Tables) -> Iterator[Line]:
    """Write narrower lines for the links of one that turned out to be too wide."""
    members = [record for record in records if line.covers >> record.bit & 1]
    for parts in _splits(members):
        for part in parts:
            yield from _lines(part, patterns, tables, _DEEPEST)


def _lines(members: Sequence[Record], patterns: int, tables: Tables, depth: int) -> list[Line]:
    line = _line(members, patterns, tables)
    if line is not None:
        return [line]
    if depth >= _DEEPEST:
        return []
    choices = [
        [found for part in parts for found in _lines(part, patterns, tables, depth + 1)] for parts in _splits(members)
    ]
    whole = sum(1 << record.bit for record in members)
    full = [lines for lines in choices if sum(line.covers for line in lines) == whole]
    return min(full, key=lambda lines: sum(line.price for line in lines), default=[])


def _splits(members: Sequence[Record]) -> Iterator[list[list[Record]]]:
    """Part links by the value of one number of the source, for each number that varies."""
    for place in range(len(members[0].numbers[0])):
        parts: dict[str, list[Record]] = defaultdict(list)
        for record in members:
            parts[record.numbers[0][place]].append(record)
        if 1 < len(parts) <= _MOST_VALUES:
            yield list(parts.values())


def _line(members: Sequence[Record], patterns: int, tables: Tables) -> Line | None:
    """Write one line for links whose keys differ in numbers alone; None where the numbers do not follow."""
    columns = [
        tuple(zip(*(record.numbers[side] for record in members), strict=True))
        for side in range(len(members[0].numbers))
    ]
    varying = [column for column in dict.fromkeys(columns[0]) if len(set(column)) > 1]
    numbers = [Number(f"_n{place}", column) for place, column in enumerate(varying)]
    sides: list[str] = []
    for side, texts in enumerate(members[0].texts):
        written = [
            _written(column, numbers) if side < patterns else _expression(column, numbers, tables)
            for column in columns[side]
        ]
        if any(text is None for text in written):
            return None
        sides.append("".join(part for pair in zip(texts, [*written, ""], strict=True) for part in pair if part))
    line = Line(tuple(sides[:patterns]), tuple(sides[patterns:]), sum(1 << record.bit for record in members))
    used = {*own_names(line.templates)}
    line = line.with_sides(tuple(_without_unused(side, used) for side in line.sides), line.covers)
    names = used & {number.name for number in numbers}
    return line if all(len(names) == len(own_names((pattern,))) for pattern in line.patterns) else None


def _without_unused(side: str, used: Collection[str]) -> str:
    """Put a wildcard for each number that nothing follows from."""
    return _OWN_NUMBER.sub(lambda braces: braces[0] if braces[1] in used else "*", side)


def _written(column: Column, numbers: Sequence[Number]) -> str | None:
    """Write a number of a pattern: itself, or a placeholder."""
    if len(set(column)) == 1:
        return column[0]
    return next((f"{{{number.name}}}" for number in numbers if number.values == column), None)


def _expression(column: Column, numbers: Sequence[Number], tables: Tables) -> str | None:
    """Write a number of a template; None where it follows from no number of the source."""
    written = _written(column, numbers)
    if written is not None or not numbers:
        return written
    if any(str(int(text)) != text for text in column):
        return _look_up(column, numbers, tables)
    wanted = tuple(int(text) for text in column)
    integers = [(number.name, tuple(int(text) for text in number.values)) for number in numbers]
    return (
        _shifted(wanted, integers)
        or _known_look_up(column, numbers, tables)
        or _strided(wanted, integers)
        or _divided(wanted, integers)
        or _look_up(column, numbers, tables)
        or _look_up_and_add(wanted, numbers, tables)
    )


def _shifted(wanted: tuple[int, ...], integers: Sequence[tuple[str, tuple[int, ...]]]) -> str | None:
    shifts = [
        (abs(wanted[0] - values[0]), wanted[0] - values[0], name)
        for name, values in integers
        if len({number - value for number, value in zip(wanted, values, strict=True)}) == 1
    ]
    return next((f"{{{name}{_signed(shift)}}}" for _, shift, name in sorted(shifts)), None)


def _strided(wanted: tuple[int, ...], integers: Sequence[tuple[str, tuple[int, ...]]]) -> str | None:
    for (name, values), stride in product(integers, range(2, _LARGEST_STRIDE + 1)):
        shift = wanted[0] - stride * values[0]
        follows = all(number == stride * value + shift for number, value in zip(wanted, values, strict=True))
        if follows and len(set(values)) >= _FEWEST_VALUES:
            return f"{{{stride}*{name}{_signed(shift)}}}"
    return None


def _divided(wanted: tuple[int, ...], integers: Sequence[tuple[str, tuple[int, ...]]]) -> str | None:
    for name, values in integers:
        spread = abs(values[0] - values[-1]) // max(1, abs(wanted[0] - wanted[-1]))
        few = len(set(values)) < _FEWEST_VALUES
        for divisor, shift in _TWO_TO_ONE if few else _divisions(spread, wanted[0], values[0]):
            inner = f"({name}{_signed(shift)})" if shift else name
            if all(number == (value + shift) // divisor for number, value in zip(wanted, values, strict=True)):
                return f"{{{inner}//{divisor}}}"
            if all(number == (value + shift) % divisor for number, value in zip(wanted, values, strict=True)):
                return f"{{{inner}%{divisor}}}"
    return None


def _divisions(spread: int, wanted: int, value: int) -> Iterator[tuple[int, int]]:
    """Give divisors and what to add before dividing: small ones, and those of evenly spread values."""
    for divisor in _DIVISORS:
        yield from ((divisor, shift) for shift in sorted(range(1 - divisor, divisor), key=abs))
    if spread > max(_DIVISORS):
        yield spread, 0
        yield spread, wanted * spread - value


def _known_look_up(column: Column, numbers: Sequence[Number], tables: Tables) -> str | None:
    """Write a look-up in a table that other lines use already."""
    for number in numbers:
        entries = dict(zip(number.values, column, strict=True))
        if all(entries[value] == text for value, text in zip(number.values, column, strict=True)):
            name = tables.find(_as_integers(entries))
            if name is not None:
                return f"{{{name}[{number.name}]}}"
    return None


def _look_up(column: Column, numbers: Sequence[Number], tables: Tables) -> str | None:
    for number in numbers:
        entries = dict(zip(number.values, column, strict=True))
        follows = all(entries[value] == text for value, text in zip(number.values, column, strict=True))
        if follows and len(entries) >= _FEWEST_ENTRIES:
            return f"{{{tables.add(_as_integers(entries))}[{number.name}]}}"
    return None


def _look_up_and_add(wanted: tuple[int, ...], numbers: Sequence[Number], tables: Tables) -> str | None:
    """Write a sum of one number and of what another stands for: where its stage begins, say."""
    for index, added in product(numbers, numbers):
        if index is not added:
            rests = [number - int(value) for number, value in zip(wanted, added.values, strict=True)]
            entries = dict(zip(index.values, rests, strict=True))
            follows = all(entries[value] == rest for value, rest in zip(index.values, rests, strict=True))
            if follows:
                return f"{{{tables.add(entries)}[{index.name}]+{added.name}}}"
    return None


def _as_integers(entries: dict[str, str]) -> dict[str, int | str]:
    if all(str(int(text)) == text for text in entries.values()):
        return {key: int(text) for key, text in entries.items()}
    return dict(entries)


def _signed(number: int) -> str:
    return f"{number:+d}" if number else ""
