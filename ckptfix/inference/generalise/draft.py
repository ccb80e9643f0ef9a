"""Rules on their way to being written: lines whose placeholders are still unnamed, and the links that they serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct, field

from ckptfix.edits import Edit, Scope
from ckptfix.expr import Expr
from ckptfix.inference.generalise.line import Line
from ckptfix.inference.link import Link
from ckptfix.keys import VarValue
from ckptfix.rules import rule_types
from ckptfix.tensors import Manifest

Reach = Literal["general", "key by key"]
"""Whether lines may stand for several links, or are written out for each."""


class Infeasible(Exception):
    """Rules in this order would make a key that is still there, or touch one that they should leave."""


class Draft(Struct, frozen=True):
    """One rule: the pairs of a rename, the patterns and templates of another op, or the `keys` of one in place.

    `links` has those of each line, or of all keys. Lines that serve none, whose tensors are only in the way of others,
    come last and have no entry; `note` is said of a rule without any.
    """

    op: str
    lines: tuple[Line, ...] = ()
    keys: tuple[str, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict)
    links: tuple[tuple[Link, ...], ...] = ()
    note: str = ""

    def values(self, lines: Sequence[Line] | None = None) -> dict[str, object]:
        """Give the rule as plain values, with other lines for its own if they are given."""
        lines = self.lines if lines is None else lines
        if self.op == "rename":
            return {"op": self.op, "map": {line.patterns[0]: line.templates[0] for line in lines}}
        if lines:
            return {"op": self.op, "from": _plain(lines[0].patterns), "to": _plain(lines[0].templates), **self.fields}
        return {"op": self.op, "keys": _plain(self.keys), **self.fields}

    def edit(self, table: Mapping[str, Expr], want: Manifest, variables: Mapping[str, VarValue]) -> Edit:
        """Work out what the rule does. Raises Infeasible where it cannot stand here."""
        rule = rule_types()[self.op].model_validate(self.values())
        edit = rule.edit(Scope(table, want, variables))
        consumed = set(edit.consumed)
        made = [row.key for row in edit.made]
        if edit.faults or edit.unmatched or len(set(made)) < len(made):
            raise Infeasible(self.op)
        if any(key in table and key not in consumed for key in made):
            raise Infeasible(self.op)
        return edit


def applied(table: Mapping[str, Expr], edit: Edit) -> dict[str, Expr]:
    """Give the table after an edit."""
    consumed = set(edit.consumed)
    return {key: expr for key, expr in table.items() if key not in consumed} | {row.key: row.expr for row in edit.made}


def _plain(texts: Sequence[str]) -> object:
    return texts[0] if len(texts) == 1 else list(texts)
