"""Find texts that stand for others: `query` -> `q`, `key` -> `k`, `value` -> `v` is a look-up table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from ckptfix.inference.generalise.line import Line
from ckptfix.inference.generalise.tables import Tables

_FEWEST_ENTRIES = 3
_MOST_LINES = 1500
_UNIT = re.compile(r"[^._/]+")
_SEGMENT = re.compile(r"[^./]+")
_TEXT = "{_t0}"


def looked_up(lines: Iterable[Line], tables: Tables) -> list[Line]:
    """Write lines that each stand for several pairs which differ in one text of either side."""
    buckets: dict[tuple[str, str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    covers: dict[tuple[str, str, str], int] = defaultdict(int)
    for line in list(lines)[:_MOST_LINES]:
        for start, text, stop in _units(line.patterns[0]):
            for before, other, after in _units(line.templates[0]):
                bucket = (f"{start}{_TEXT}{stop}", before, after)
                buckets[bucket][text].add(other)
                covers[bucket] |= line.covers
    found: list[Line] = []
    for bucket, entries in buckets.items():
        table = {text: next(iter(others)) for text, others in entries.items() if len(others) == 1}
        if len(table) < max(len(entries), _FEWEST_ENTRIES) or all(text == other for text, other in table.items()):
            continue
        pattern, before, after = bucket
        name = tables.add({text: _integer(other) for text, other in table.items()})
        line = Line((pattern,), (f"{before}{{{name}[_t0]}}{after}",), covers[bucket])
        found.append(line.with_sides(line.sides, line.covers))
    return found


def _units(side: str) -> Iterator[tuple[str, str, str]]:
    """Give the segments of a key and their parts between underscores, with what stands before and after."""
    if "{_t" in side:
        return
    spans = {match.span() for unit in (_UNIT, _SEGMENT) for match in unit.finditer(side)}
    for start, stop in sorted(spans):
        text = side[start:stop]
        if "{" not in text and "}" not in text and "*" not in text and _is_outside(side, start):
            yield side[:start], text, side[stop:]


def _is_outside(side: str, start: int) -> bool:
    return side.count("{", 0, start) == side.count("}", 0, start)


def _integer(text: str) -> int | str:
    return int(text) if text.isdecimal() and str(int(text)) == text else text
