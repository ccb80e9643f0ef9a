"""Write rearrangements: one rule for all links of one layout whose keys follow one pattern."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.edits import Edit
from ckptfix.errors import CkptfixError
from ckptfix.expr import Expr
from ckptfix.inference.generalise.cover import cover
from ckptfix.inference.generalise.draft import Draft, Infeasible, Reach, applied
from ckptfix.inference.generalise.expected import Piece, alike, same
from ckptfix.inference.generalise.line import Line, bits_of
from ckptfix.inference.generalise.numbers import number_lines, read_record, split_line
from ckptfix.inference.generalise.selection import patterns_of
from ckptfix.inference.generalise.tables import Tables
from ckptfix.inference.generalise.terms import listed_sides, sides_of
from ckptfix.inference.generalise.widen import widened
from ckptfix.tensors import Manifest

Table = dict[str, Expr]


class Group(Struct, frozen=True):
    """Links of one layout, sizes and number of terms, and the table before their rules."""

    pieces: Sequence[Piece]
    table: Table
    want: Manifest
    tables: Tables
    known: dict[tuple[str, ...], Edit | None] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, object]:
        """What their rules share."""
        piece = self.pieces[0]
        return {"layout": piece.link.layout} | ({"sizes": dict(piece.sizes)} if piece.sizes else {})

    def draft(self, line: Line, covered: int = 0) -> Draft:
        """Make a rule of a line, for the links that it covers."""
        links = tuple(self.pieces[bit].link for bit in bits_of(covered))
        return Draft("rearrange", (line,), fields=self.fields, links=(links,))

    def after(self, line: Line) -> Group:
        """Give the group once the rule of an exact line has been applied."""
        edit = self.edit(line)
        return replace(self, table=applied(self.table, edit) if edit else self.table, known={})

    def exact(self, line: Line) -> int:
        """Give the links that a rule of this line makes; 0 where it does anything else."""
        edit = self.edit(line)
        return self._covered(edit) if edit else 0

    def edit(self, line: Line) -> Edit | None:
        """Work out what the rule does; None where it cannot stand here."""
        if line.sides not in self.known:
            try:
                self.known[line.sides] = self.draft(line).edit(self.table, self.want, self.tables.variables)
            except (Infeasible, CkptfixError, ValueError):
                self.known[line.sides] = None
        return self.known[line.sides]

    def _covered(self, edit: Edit) -> int:
        made = {row.key: row.expr for row in edit.made}
        covered = 0
        sources: set[str] = set()
        for bit, piece in enumerate(self.pieces):
            if all(key in made and alike(made[key], expr) for key, expr in piece.made.items()):
                covered |= 1 << bit
                sources |= set(piece.source_keys)
        count = sum(len(self.pieces[bit].made) for bit in bits_of(covered))
        return covered if count == len(made) and sources == set(edit.consumed) else 0


def arranged(
    pieces: Sequence[Piece], table: Table, want: Manifest, tables: Tables, reach: Reach
) -> tuple[list[Draft], Table]:
    """Write the rules, in an order in which they can stand, and give the table after them. Raises Infeasible."""
    waiting = _grouped(pieces)
    drafts: list[Draft] = []
    while waiting:
        before = len(waiting)
        still: list[Sequence[Piece]] = []
        for members in waiting:
            try:
                more, table = _rules(members, table, want, tables, reach)
                drafts += more
            except Infeasible:
                still.append(members)
        waiting = still
        if len(waiting) == before:
            raise Infeasible("rearrange")
    return drafts, table


def arranged_in_place(
    pieces: Sequence[Piece], table: Table, want: Manifest, tables: Tables, reach: Reach
) -> tuple[list[Draft], Table]:
    """Write the rules for tensors that are under their target keys already. Raises Infeasible."""
    drafts: list[Draft] = []
    for members in _grouped(pieces):
        group = Group(members, table, want, tables)
        keys = patterns_of([piece.target for piece in members], table, reach)
        links = tuple(piece.link for piece in members)
        draft = Draft("rearrange", keys=tuple(keys), fields=group.fields, links=(links,))
        edit = draft.edit(table, want, tables.variables)
        if not same(
            {row.key: row.expr for row in edit.made}, {piece.target: piece.made[piece.target] for piece in members}
        ):
            raise Infeasible("rearrange")
        drafts.append(draft)
        table = applied(table, edit)
    return drafts, table


def _grouped(pieces: Sequence[Piece]) -> list[Sequence[Piece]]:
    groups: dict[object, list[Piece]] = defaultdict(list)
    for piece in pieces:
        axes = tuple(term.axis for term in (*piece.sources, *piece.link.targets))
        groups[piece.link.layout, piece.sizes, len(piece.sources), axes].append(piece)
    return list(groups.values())


def _rules(
    pieces: Sequence[Piece], table: Table, want: Manifest, tables: Tables, reach: Reach
) -> tuple[list[Draft], Table]:
    sides = [sides_of(piece.sources, piece.link.targets) for piece in pieces]
    count = len(pieces[0].sources)
    records = [read_record(bit, side) for bit, side in enumerate(sides)] if reach == "general" else []
    base = number_lines(records, count, tables)
    base += [part for line in base for part in split_line(line, records, count, tables)]
    tables.count_uses(base)
    group = Group(pieces, table, want, tables)
    wanted = (1 << len(pieces)) - 1
    drafts: list[Draft] = []
    for line in cover(base + widened(base), wanted, group.exact, tables.price):
        covered = group.exact(line)
        if covered & wanted:
            drafts.append(group.draft(line, covered))
            group, wanted = group.after(line), wanted & ~covered
    for bit in bits_of(wanted):
        line = _written_out(group, bit)
        drafts.append(group.draft(line, group.exact(line)))
        group = group.after(line)
    return drafts, group.table


def _written_out(group: Group, bit: int) -> Line:
    """Write one link out. Raises Infeasible where its rule cannot stand here."""
    piece = group.pieces[bit]
    count = len(piece.sources)
    for sides in (sides_of(piece.sources, piece.link.targets), listed_sides(piece.sources, piece.link.targets)):
        line = Line(sides[:count], sides[count:], 1 << bit)
        if group.exact(line):
            return line
    raise Infeasible("rearrange")
