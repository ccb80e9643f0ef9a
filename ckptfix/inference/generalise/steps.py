"""Lay out the rules of a recipe one after the other, each tried on the table as it then stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from ckptfix.expr import Expr
from ckptfix.inference.generalise.arrange import Table, arranged, arranged_in_place
from ckptfix.inference.generalise.copies import copies
from ckptfix.inference.generalise.draft import Draft, Reach, applied
from ckptfix.inference.generalise.expected import Piece
from ckptfix.inference.generalise.filling import tell_filled
from ckptfix.inference.generalise.line import Line, bits_of
from ckptfix.inference.generalise.rename import rename_lines
from ckptfix.inference.generalise.selection import patterns_of
from ckptfix.inference.generalise.tables import Table as LookUp
from ckptfix.inference.generalise.tables import Tables, look_ups
from ckptfix.inference.generalise.task import Task
from ckptfix.keys import KeyPattern
from ckptfix.tensors import Manifest

Order = Literal["arrange first", "rename first", "rename first, then in place", "out of the way"]
"""Which rules go before the others. In the last order, sources that are in the way of a new key move first."""

_SURE = (0.9, 0.6)
"""The confidences at which links become another class."""
_COPIED = "one tensor under more keys"


class Laid(Struct, frozen=True):
    """Rules in order, the table that they lead to, and the look-up tables that they use."""

    drafts: tuple[Draft, ...]
    table: Mapping[str, Expr]
    tables: Tables

    def entries(self, table: Table, want: Manifest) -> dict[str, LookUp]:
        """Give the look-up tables that the rules use on a table, with the entries that they use."""
        used: dict[str, LookUp] = {}
        if not any(look_ups(line) for draft in self.drafts for line in draft.lines):
            return used
        for draft in self.drafts:
            for line in draft.lines:
                for name, index in look_ups(line):
                    found = {bound[index] for _, bound in KeyPattern.parse(line.patterns[0]).matches(table)}
                    used.setdefault(name, {}).update(
                        (key, value) for key, value in self.tables.variables[name].items() if key in found
                    )
            table = applied(table, draft.edit(table, want, self.tables.variables))
        return used

    @property
    def price(self) -> float:
        """What the rules cost a reader."""
        lines = [line for draft in self.drafts for line in draft.lines]
        keys = [key for draft in self.drafts for key in draft.keys]
        return self.tables.total(lines) + sum(len(key) + 8 for key in keys) + 30 * len(self.drafts)


def lay_out(task: Task, order: Order, reach: Reach = "general") -> Laid:
    """Write all rules in one order. Raises Infeasible where they cannot stand in it."""
    tables = Tables()
    moved: Mapping[str, str] = {}
    if order == "out of the way":
        task, moved = task.out_of_the_way()
    drafts, table = _before(task, tables, reach)
    in_place = [piece for piece in task.layouts if _is_in_place(piece, order)]
    others = [piece for piece in task.layouts if not _is_in_place(piece, order)]
    renamed = [piece for piece in task.pieces if piece.link.layout is None] + in_place
    if order == "arrange first":
        more, table = arranged(others, table, task.want, tables, reach)
        drafts += more
    more, table = _renamed(renamed, moved, table, task.want, tables, reach)
    drafts += more
    if order != "arrange first":
        more, table = arranged(others, table, task.want, tables, reach)
        drafts += more
    more, table = arranged_in_place(in_place, table, task.want, tables, reach)
    drafts += more
    more, table = _resized(task.pieces, table, task.want, reach)
    drafts += more
    more, table = _after(task, table, tables, reach)
    return Laid((*drafts, *more), table, tables)


def _is_in_place(piece: Piece, order: Order) -> bool:
    """Tell whether a layout is about a tensor that has its target key by then."""
    return piece.is_single and (order == "rename first, then in place" or piece.source_keys[0] == piece.target)


def _before(task: Task, tables: Tables, reach: Reach) -> tuple[list[Draft], Table]:
    drafts: list[Draft] = []
    table = dict(task.table)
    if task.dropped:
        keys = patterns_of(task.dropped, table, reach)
        drafts.append(Draft("drop", keys=tuple(keys), note="nothing of the target is made of these"))
    if task.again:
        rest = [key for key in table if key not in set(task.dropped)]
        drafts += copies(task.again, rest, tables, reach, "these are used more than once")
    if task.bases:
        drafts.append(_moving(task))
    return _all_applied(drafts, table, task.want, tables)


def _moving(task: Task) -> Draft:
    """Write the rule that moves branches."""
    links = tuple(
        tuple(piece.link for piece in task.pieces if any(key.startswith(f"{new}.") for key in piece.source_keys))
        for new in task.bases.values()
    )
    lines = tuple(Line((f"{old}.{{_r:**}}",), (f"{new}.{{_r}}",), 0) for old, new in task.bases.items())
    return Draft("rename", lines, links=links)


def _after(task: Task, table: Table, tables: Tables, reach: Reach) -> tuple[list[Draft], Table]:
    """Fill and copy, in the order in which a copy finds its original."""
    filled: list[Draft] = []
    if task.filled:
        keys = tuple(patterns_of(task.filled, task.want, reach))
        filled = [Draft("fill", keys=keys, fields={"value": "target"}, note=tell_filled(task))]
    if any(original in set(task.filled) for original in task.copied.values()):
        filled, table = _all_applied(filled, table, task.want, tables)
        copied, table = _all_applied(copies(task.copied, table, tables, reach, _COPIED), table, task.want, tables)
        return filled + copied, table
    copied, table = _all_applied(copies(task.copied, table, tables, reach, _COPIED), table, task.want, tables)
    filled, table = _all_applied(filled, table, task.want, tables)
    return copied + filled, table


def _all_applied(drafts: Sequence[Draft], table: Table, want: Manifest, tables: Tables) -> tuple[list[Draft], Table]:
    for draft in drafts:
        table = applied(table, draft.edit(table, want, tables.variables))
    return list(drafts), table


def _renamed(
    pieces: Sequence[Piece],
    moved: Mapping[str, str],
    table: Table,
    want: Manifest,
    tables: Tables,
    reach: Reach,
) -> tuple[list[Draft], Table]:
    links = {piece.source_keys[0]: piece.link for piece in pieces if piece.source_keys[0] != piece.target}
    places = {key: place for place, key in enumerate(want)}
    moves = {key: link.target_keys[0] for key, link in links.items()} | dict(moved)
    moves = dict(sorted(moves.items(), key=lambda move: places.get(move[1], len(places))))
    if not moves:
        return [], table
    classes = [_class(links[key].confidence) if key in links else 0 for key in moves]
    keys = list(moves)
    drafts: list[Draft] = []
    for step in rename_lines(list(table), moves, classes, tables, reach):
        lines = sorted(step, key=lambda line: line.covers & -line.covers)
        served = [tuple(links[keys[bit]] for bit in bits_of(line.covers) if keys[bit] in links) for line in lines]
        drafts.append(
            Draft("rename", tuple(lines), links=tuple(filter(None, served)), note="these are in the way of others")
        )
    return _all_applied(drafts, table, want, tables)


def _class(confidence: float) -> int:
    return sum(confidence < bound for bound in _SURE)


def _resized(pieces: Sequence[Piece], table: Table, want: Manifest, reach: Reach) -> tuple[list[Draft], Table]:
    groups: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.link.resize is not None:
            groups[repr(sorted(piece.link.resize.items()))].append(piece)
    drafts = [
        Draft(
            "resize",
            keys=tuple(patterns_of([piece.target for piece in members], table, reach)),
            fields=dict(members[0].link.resize or {}),
            links=(tuple(piece.link for piece in members),),
        )
        for members in groups.values()
    ]
    return _all_applied(drafts, table, want, Tables())
