"""Look-up tables that several lines share, as `stage[i]` in `blocks.{stage[i]}`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from ckptfix.inference.generalise.line import Line, own_names

Table = dict[str, int | str]

_TABLE_PRICE = 60
_TEXT_TABLE_PRICE = 150
_EXCEPTION_PRICE = 120
"""What a table costs more whose values are all the same but one: that one is better written out."""


_LOOK_UP = re.compile(r"(_v\d+)\[(\w+)\]")


def tables_of(line: Line) -> list[str]:
    """List the tables that a line looks up."""
    return [name for name in own_names(line.templates) if name.startswith("_v")]


def look_ups(line: Line) -> list[tuple[str, str]]:
    """List the tables that a line looks up, each with the placeholder that it is indexed by."""
    return [pair for template in line.templates for pair in _LOOK_UP.findall(template)]


class Tables:
    """The tables found so far. Those that do not contradict each other, and have something in common, are one."""

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}
        self._uses: Counter[str] = Counter()

    def find(self, entries: Mapping[str, int | str]) -> str | None:
        """Give the name of a table that has all these entries already."""
        holds = (name for name, table in self._tables.items() if entries.items() <= table.items())
        return next(holds, None)

    def add(self, entries: Mapping[str, int | str]) -> str:
        """Give the name of a table that has these entries."""
        for name, table in self._tables.items():
            common = [key for key in entries if key in table]
            if common and all(table[key] == entries[key] for key in common):
                table |= entries
                return name
        name = f"_v{len(self._tables)}"
        self._tables[name] = dict(entries)
        return name

    def count_uses(self, lines: Iterable[Line]) -> None:
        """Note how many lines use each table: they share its price."""
        self._uses = Counter(name for line in lines for name in tables_of(line))

    def price(self, line: Line) -> float:
        """What the line costs a reader, and its share of writing down the tables that it uses."""
        return line.price + sum(self._price_of_table(name) / max(1, self._uses[name]) for name in tables_of(line))

    def total(self, lines: Iterable[Line]) -> float:
        """What lines cost a reader together, each of their tables once."""
        lines = list(lines)
        tables = {name for line in lines for name in tables_of(line)}
        return sum(line.price for line in lines) + sum(map(self._price_of_table, tables))

    def _price_of_table(self, name: str) -> int:
        table = self._tables[name]
        if all(key.isdecimal() and isinstance(value, int) for key, value in table.items()):
            counts = Counter(table.values())
            is_exception = len(counts) == 2 and min(counts.values()) == 1
            letters = sum(len(str(value)) + 2 for value in table.values())
            return _TABLE_PRICE + letters + _EXCEPTION_PRICE * is_exception
        return _TEXT_TABLE_PRICE + sum(len(key) + len(str(value)) + 4 for key, value in table.items())

    @property
    def variables(self) -> Mapping[str, Table]:
        """All tables, as variables of a recipe."""
        return self._tables
