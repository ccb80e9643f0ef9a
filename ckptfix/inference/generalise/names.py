"""Give the placeholders and tables of finished lines names that a person would choose."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from keyword import iskeyword

from ckptfix.inference.generalise.line import BRACES, Line, own_names, with_names
from ckptfix.inference.generalise.tables import Table, tables_of

_NUMBERS = "ijklmnuvwxyz"
_TEXTS = "mnlstxyz"
_RUNS = "krb"
_NAME = re.compile(r"[A-Za-z_]\w*")
_EXPERT = re.compile(r"experts?\.$")
_NUMBERED_TWICE = re.compile(r"\{_v\d+\[\w+\]\}\.\{_v\d+\[\w+\]\}")
"""Two numbers that are looked up side by side."""
_WORD = re.compile(r"([A-Za-z]+)[^A-Za-z{}]*$")


def named_lines(lines: Sequence[Line], tables: Mapping[str, str]) -> list[Line]:
    """Name the placeholders of each line; `tables` names the tables."""
    return [_named(line, tables) for line in lines]


def table_names(lines: Iterable[Line], tables: Mapping[str, Table]) -> dict[str, str]:
    """Name the tables that the lines use by what stands before them: `blocks.{..}.{..}` has stage and block."""
    names: dict[str, str] = {}
    for template in dict.fromkeys(template for line in lines for template in line.templates):
        used = tables_of(Line((), (template,), 0))
        for place, table in enumerate(used):
            if table not in names:
                wanted = _table_names(template, table, tables[table], used[place:], len(used))
                names[table] = _free(wanted, names.values())
    return names


def written_tables(tables: Mapping[str, Table], names: Mapping[str, str]) -> dict[str, object]:
    """Give tables as variables: lists where they are indexed by small numbers."""
    return {names[table]: _written(entries) for table, entries in tables.items()}


def _written(table: Table) -> object:
    numbers = [int(key) for key in table if key.isdecimal() and str(int(key)) == key]
    if len(numbers) < len(table) or max(numbers) > 2 * len(numbers) + 1:
        return dict(table)
    filler = 0 if all(isinstance(value, int) for value in table.values()) else ""
    return [table.get(str(place), filler) for place in range(max(numbers) + 1)]


def _table_names(template: str, table: str, entries: Table, rest: Sequence[str], used: int) -> Iterator[str]:
    if re.search(rf"{table}\[\w+\]\+", template):
        yield "first"
    if used == 2 and _NUMBERED_TWICE.search(template):
        yield ("block", "stage")[len(rest) - 1]
    if all(isinstance(value, int) for value in entries.values()):
        word = _WORD.search(template.partition(f"{{{table}[")[0])
        if word:
            yield word[1].removesuffix("s").lower() or word[1].lower()
        yield "place"
    yield "part"


def _named(line: Line, tables: Mapping[str, str]) -> Line:
    axes = {name for side in line.sides for braces in BRACES.findall(side) for name in _NAME.findall(braces)[:1]}
    taken = {name for name in axes if not name.startswith("_")} | set(tables.values())
    names = dict(tables)
    for own in own_names(line.patterns):
        names[own] = _free(_placeholder_names(own, line), taken | set(names.values()))
    sides = tuple(with_names(side, names) for side in line.sides)
    return Line(sides[: len(line.patterns)], sides[len(line.patterns) :], line.covers)


def _placeholder_names(own: str, line: Line) -> Iterator[str]:
    before, _, after = line.patterns[0].partition(f"{{{own}")
    if own == "_r":
        if not before and after.partition("}")[2]:
            yield "b"
        yield from _RUNS
    elif own.startswith("_n"):
        if _EXPERT.search(before):
            yield "e"
        yield from _NUMBERS
    else:
        if not after.partition("}")[2]:
            yield "p"
        if any(f"[{own}]" in template for template in line.templates):
            yield "l"
        yield from _TEXTS


def _free(wanted: Iterable[str], taken: Collection[str]) -> str:
    """Choose the first name that is not taken, and none that Python's expressions keep; numbered where all are."""
    names = list(wanted)
    numbered = (f"{names[-1]}{number}" for number in count(2))
    return next(name for name in chain(names, numbered) if name not in taken and not iskeyword(name))
