"""Write copies of one tensor under more keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ckptfix.errors import PatternError
from ckptfix.inference.generalise.cover import cover
from ckptfix.inference.generalise.draft import Draft, Reach
from ckptfix.inference.generalise.line import Line, bits_of
from ckptfix.inference.generalise.numbers import number_lines, read_record
from ckptfix.inference.generalise.tables import Tables
from ckptfix.inference.generalise.widen import widened
from ckptfix.keys import KeyPattern, KeyTemplate


def copies(wanted: Mapping[str, str], keys: Collection[str], tables: Tables, reach: Reach, note: str) -> list[Draft]:
    """Write the rules that make each wanted key a copy of one of the keys."""
    pairs = [(old, new) for new, old in wanted.items()]
    bits = {pair: bit for bit, pair in enumerate(pairs)}

    def check(line: Line) -> int:
        template = KeyTemplate.parse(line.templates[0])
        covered = 0
        for key, bound in KeyPattern.parse(line.patterns[0]).matches(keys):
            try:
                pair = (key, template.fill(bound, tables.variables))
            except PatternError:
                return 0
            if pair not in bits or covered >> bits[pair] & 1:
                return 0
            covered |= 1 << bits[pair]
        return covered

    records = [read_record(bit, pair) for pair, bit in bits.items()] if reach == "general" else []
    base = number_lines(records, 1, tables)
    tables.count_uses(base)
    chosen = cover(base + widened(base), (1 << len(pairs)) - 1, check, tables.price)
    left = set(range(len(pairs))) - {bit for line in chosen for bit in bits_of(line.covers)}
    chosen += [Line((pairs[bit][0],), (pairs[bit][1],), 1 << bit) for bit in sorted(left)]
    return [Draft("copy", (line,), note=note) for line in chosen]
