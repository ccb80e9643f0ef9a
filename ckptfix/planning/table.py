"""The table of expressions that rules edit, with the rule that last touched each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptfix.errors import CkptfixError, KeyCollision, Origin, UnmatchedPattern
from ckptfix.expr import Expr, Read, sources
from ckptfix.keys import nearest_keys
from ckptfix.rules.base import Edit, Made
from ckptfix.tensors import Manifest

_MOST_FAULTS = 5


@dataclass(frozen=True)
class Row:
    """One key of the table. `rule` counts from 1; None for a tensor that no rule has touched."""

    expr: Expr
    rule: int | None = None


@dataclass(frozen=True)
class Collision:
    """A key made twice: by rules (None stands for the source itself)."""

    key: str
    rules: tuple[int | None, int | None]


@dataclass(frozen=True)
class Step:
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


def expressions(table: Mapping[str, Row]) -> dict[str, Expr]:
    """Give the table as rules see it."""
    return {key: row.expr for key, row in table.items()}


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
    table: Table, number: int, origin: Origin, edit: Edit, matched_in: Mapping[str, object]
) -> tuple[Table, Step]:
    """Take out what the rule consumes, put in what it makes; a key that is already there stays, as an error."""
    consumed = set(edit.consumed)
    result = {key: row for key, row in table.items() if key not in consumed}
    errors: list[CkptfixError] = [
        UnmatchedPattern(
            f"'{pattern}' matches no key",
            where=origin,
            hint=_nearest_hint(nearest_keys(pattern.text, matched_in)),
        )
        for pattern in edit.unmatched
    ]
    errors += [_at(origin, fault) for fault in edit.faults[:_MOST_FAULTS]]
    if len(edit.faults) > _MOST_FAULTS:
        errors.append(type(edit.faults[-1])(f"and {len(edit.faults) - _MOST_FAULTS} more keys", where=origin))
    collisions: list[Collision] = []
    for made in edit.made:
        if made.key in result:
            other = result[made.key].rule
            collisions.append(Collision(made.key, (other, number)))
            errors.append(_collision_error(made, other, number, origin))
        else:
            result[made.key] = Row(made.expr, number)
    return result, Step(number, origin, edit, tuple(errors), tuple(collisions))


def _collision_error(made: Made, other: int | None, number: int, origin: Origin) -> KeyCollision:
    if other == number:
        first = "by another key of this rule"
    else:
        first = f"by rule {other}" if other else "by the checkpoint itself"
    made_from = f" from '{made.parents[0]}'" if made.parents else ""
    return KeyCollision(
        f"rule {number} makes '{made.key}'{made_from}, which is already there, made {first}",
        where=origin,
        hint="drop or rename one of them first",
    )


def _at(origin: Origin, fault: CkptfixError) -> CkptfixError:
    return type(fault)(fault.message, where=origin, hint=fault.hint)


def _nearest_hint(keys: list[str]) -> str:
    return f"nearest: {', '.join(keys)}" if keys else "say optional: true if that is meant"


def dropped_sources(table: Table, edit: Edit) -> list[str]:
    """List the source keys that lose a row without a row being made from it."""
    parents = {parent for made in edit.made for parent in made.parents}
    return [key for gone in edit.consumed if gone not in parents for key in sources(table[gone].expr)]
