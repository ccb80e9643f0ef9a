"""Try pairs of a rename on all keys of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from ckptfix.errors import PatternError
from ckptfix.inference.generalise.line import Line, bits_of
from ckptfix.inference.generalise.narrow import narrowed
from ckptfix.inference.generalise.tables import Tables
from ckptfix.keys import KeyPattern, KeyTemplate

_SPOILING_PRICE = 20


class Verdict(Struct, frozen=True):
    """What a pair does: the renames that it makes, and those that it would spoil; None where it spoils other keys."""

    covered: int
    spoilt: int | None


class Trial:
    """Tries pairs on all keys of a table: of those in `moves`, the wanted get new ones, all others stay."""

    def __init__(
        self, keys: Collection[str], moves: Mapping[str, str], tables: Tables, wanted: int | None = None
    ) -> None:
        self.keys = keys
        self.moves = moves
        self.tables = tables
        self.pairs = list(moves.items())
        self.wanted = (1 << len(moves)) - 1 if wanted is None else wanted
        self._bits = {self.pairs[bit][0]: bit for bit in bits_of(self.wanted)}
        self._known: dict[tuple[str, ...], Verdict] = {}

    def parts(self, first: Collection[str]) -> tuple[Trial, Trial]:
        """Give the trial of some keys alone, and that of the others once these have their new keys."""
        wanted = sum(1 << self._bits[key] for key in first)
        keys = [self.moves[key] if key in first else key for key in self.keys]
        return (
            Trial(self.keys, self.moves, self.tables, wanted),
            Trial(keys, self.moves, self.tables, self.wanted & ~wanted),
        )

    def verdict(self, line: Line) -> Verdict:
        """Say what a pair does."""
        if line.sides not in self._known:
            self._known[line.sides] = self._tried(line)
        return self._known[line.sides]

    def exact(self, line: Line) -> int:
        """Give the renames that a pair makes; 0 where it spoils anything."""
        verdict = self.verdict(line)
        return verdict.covered if verdict.spoilt == 0 else 0

    def loose(self, line: Line) -> int:
        """Give the renames that a pair makes where it spoils at most others, which could go before it."""
        verdict = self.verdict(line)
        return 0 if verdict.spoilt is None else verdict.covered

    def price(self, line: Line) -> float:
        """What a pair costs a reader; more where it is known to spoil others, which then need a rule before it."""
        known = self._known.get(line.sides)
        return self.tables.price(line) + (_SPOILING_PRICE if known and known.spoilt else 0)

    def narrowed(self, lines: Sequence[Line]) -> list[Line]:
        """Write narrower lines for those that were tried and match too much."""
        failed = [line for line in lines if line.sides in self._known and not self.exact(line)]
        return [
            narrow for line in failed for narrow in narrowed(line, [self.pairs[bit][0] for bit in bits_of(line.covers)])
        ]

    def _tried(self, line: Line) -> Verdict:
        pattern, template = KeyPattern.parse(line.patterns[0]), KeyTemplate.parse(line.templates[0])
        covered = spoilt = 0
        for key, bound in pattern.matches(self.keys):
            try:
                new = template.fill(bound, self.tables.variables)
            except PatternError:
                new = ""
            if key not in self._bits:
                if new != key:
                    return Verdict(0, None)
            elif new == self.moves[key]:
                covered |= 1 << self._bits[key]
            else:
                spoilt |= 1 << self._bits[key]
        return Verdict(covered, spoilt)

    def leads(self, steps: Sequence[Sequence[Line]]) -> bool:
        """Tell whether rules one after the other give every key its new one."""
        now = {key: key for key in self.keys}
        for step in steps:
            new_keys: dict[str, str] = {}
            for line in step:
                made = self._made(line, now)
                if not made or any(new_keys.setdefault(key, new) != new for key, new in made.items()):
                    return False
            moved = {new_keys.get(key, key): origin for key, origin in now.items()}
            if len(moved) < len(now):
                return False
            now = moved
        return all(self.moves.get(origin, origin) == key for key, origin in now.items())

    def _made(self, line: Line, keys: Collection[str]) -> dict[str, str]:
        """Give the new key of each that a pair matches; none where one cannot be calculated."""
        pattern, template = KeyPattern.parse(line.patterns[0]), KeyTemplate.parse(line.templates[0])
        try:
            return {key: template.fill(bound, self.tables.variables) for key, bound in pattern.matches(keys)}
        except PatternError:
            return {}
