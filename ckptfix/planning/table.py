"""The table of expressions that rules edit, with the rule that last touched each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from ckptfix.edits import Edit, Made
from ckptfix.errors import CkptfixError, KeyCollision, Origin, RuleError, UnmatchedPattern
from ckptfix.expr import Expr, Read, sources
from ckptfix.keys import KeyIndex, KeyPattern, Searchable, nearest_keys
from ckptfix.tensors import Manifest

MAX_DEPTH = 100
"""Rules that may change one tensor, one after another."""
_MOST_FAULTS = 5


class Row(Struct, frozen=True, gc=False):
    """One key of the table. `rule` counts from 1; None for a tensor that no rule has touched.

    `depth` counts the rules that have changed the tensor, one after another; a new name changes nothing.
    """

    expr: Expr
    rule: int | None = None
    depth: int = 0


class Collision(Struct, frozen=True):
    """A key made twice: by rules (None stands for the source itself)."""

    key: str
    rules: tuple[int | None, int | None]


class Step(Struct, frozen=True):
    """One rule of a plan, what it did, and what was wrong with it."""

    number: int
    origin: Origin
    edit: Edit
    errors: tuple[CkptfixError, ...] = ()
    collisions: tuple[Collision, ...] = ()


Table = dict[str, Row]


def read_table(have: Manifest) -> Table:
    """Make the table that every plan starts from: each source tensor under its own key."""
    return {key: Row(Read(key, spec)) for key, spec in have.items()}


class Expressions(Searchable[Expr]):
    """A table as rules see it. The index goes on to the next table, and then this one needs its own."""

    def __init__(self, table: Table, index: KeyIndex) -> None:
        self._rows = table
        self._index = index

    def between(self, start: str, end: str) -> list[str]:
        """List the keys that begin with one text and end with another, in the order of the table."""
        if self._index.keys is not self._rows:
            self._index = KeyIndex(self._rows)
        return self._index.between(start, end)

    def __getitem__(self, key: str) -> Expr:
        return self._rows[key].expr

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def strip_prefixes(table: Table, prefixes: tuple[str, ...], origin: Origin) -> tuple[Table, list[CkptfixError]]:
    """Take prefixes off the keys that have them, one prefix after the other."""
    errors: list[CkptfixError] = []
    for prefix in prefixes:
        if not any(key.startswith(prefix) for key in table):
            near = ", ".join(nearest_keys(prefix, table))
            hint = f"nearest: {near}" if near else None
            errors.append(UnmatchedPattern(f"no key has the prefix '{prefix}'", where=origin, hint=hint))
        stripped: Table = {}
        for key, row in table.items():
            new = key.removeprefix(prefix)
            if new in stripped:
                errors.append(
                    KeyCollision(f"without '{prefix}' both '{new}' and '{prefix}{new}' are '{new}'", where=origin)
                )
            stripped.setdefault(new, row)
        table = stripped
    return table, errors


def apply_edit(
    table: Table,
    number: int,
    origin: Origin,
    edit: Edit,
    matched_in: Mapping[str, object],
    where: Literal["table", "target"] = "table",
) -> tuple[Table, Step]:
    """Take out what the rule consumes, put in what it makes; a key that is already there stays, as an error.

    Raises RuleError where expressions would lie too deep in one another.
    """
    result = dict(table)
    for key in edit.consumed:
        result.pop(key, None)
    errors: list[CkptfixError] = [_unmatched(pattern, origin, matched_in, where) for pattern in edit.unmatched]
    errors += _first_of([_at(origin, fault) for fault in edit.faults], origin)
    collisions: list[Collision] = []
    clashes: list[CkptfixError] = []
    by_this_rule: dict[str, Made] = {}
    for made in edit.made:
        if made.key in result:
            other = result[made.key].rule
            collisions.append(Collision(made.key, (other, number)))
            clashes.append(_collision_error(made, other, number, origin, by_this_rule.get(made.key)))
        else:
            result[made.key] = Row(made.expr, number, _depth(table, made, origin))
            by_this_rule[made.key] = made
    errors += _first_of(clashes, origin)
    return result, Step(number, origin, edit, tuple(errors), tuple(collisions))


def _depth(table: Table, made: Made, origin: Origin) -> int:
    parents = [table[key] for key in made.parents if key in table]
    depth = max((parent.depth + (parent.expr is not made.expr) for parent in parents), default=0)
    if depth > MAX_DEPTH:
        raise RuleError(
            f"'{made.key}' would be changed by more than {MAX_DEPTH} rules, one after another",
            where=origin,
            hint="write what they come to together as fewer rules",
        )
    return depth


def _first_of(errors: list[CkptfixError], origin: Origin) -> list[CkptfixError]:
    """Keep the first errors of a rule, and count the others."""
    if len(errors) <= _MOST_FAULTS:
        return errors
    return [*errors[:_MOST_FAULTS], type(errors[-1])(f"and {len(errors) - _MOST_FAULTS} more keys", where=origin)]


def _unmatched(
    pattern: KeyPattern, origin: Origin, keys: Mapping[str, object], where: Literal["table", "target"]
) -> UnmatchedPattern:
    """Say what a pattern found nothing in; keys that it matches behind a prefix are nearest."""
    behind = [] if "**" in pattern.text else [key for key, _ in KeyPattern.parse(f"**.{pattern}").matches(keys)][:3]
    near = behind or nearest_keys(pattern.text, keys)
    of_target = " of the target" if where == "target" else ""
    hint = f"nearest: {', '.join(near)}" if near else "say optional: true if that is meant"
    return UnmatchedPattern(f"'{pattern}' matches no key{of_target}", where=origin, hint=hint)


def _collision_error(made: Made, other: int | None, number: int, origin: Origin, twin: Made | None) -> KeyCollision:
    made_from = f" from '{made.parents[0]}'" if made.parents else ""
    if twin is not None and twin.parents:
        message = f"rule {number} makes '{made.key}' twice: from '{twin.parents[0]}' and{made_from}"
        return KeyCollision(message, where=origin, hint="drop one of them first")
    first = f"by rule {other}" if other else "by the checkpoint itself"
    return KeyCollision(
        f"rule {number} makes '{made.key}'{made_from}, which is already there, made {first}",
        where=origin,
        hint="drop or rename one of them first",
    )


def _at(origin: Origin, fault: CkptfixError) -> CkptfixError:
    return type(fault)(fault.message, where=origin, hint=fault.hint)


def dropped_sources(table: Table, edit: Edit) -> list[str]:
    """List the source keys that lose a row without a row being made from it."""
    parents = {parent for made in edit.made for parent in made.parents}
    return [key for gone in edit.consumed if gone not in parents for key in sources(table[gone].expr)]
