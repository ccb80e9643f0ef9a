"""What each link must come to: the expressions that its own rules, written out key by key, would make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.edits import Scope
from ckptfix.errors import CkptfixError
from ckptfix.expr import Channels, Crop, Expr, Pad, Read, Rearrange, Resize
from ckptfix.inference.link import Link, Term
from ckptfix.rules import rearrange, resize
from ckptfix.tensors import Manifest


class Piece(Struct, frozen=True):
    """A link over the keys of the table, and what it makes of it before any resizing.

    `sources` are the terms by the keys that the table has: without prefixes, or moved out of the way.
    """

    link: Link
    sources: tuple[Term, ...]
    sizes: tuple[tuple[str, int], ...]
    made: Mapping[str, Expr]

    @property
    def target(self) -> str:
        """The first key that the link makes."""
        return self.link.target_keys[0]

    @property
    def source_keys(self) -> tuple[str, ...]:
        """All keys of the table that the link uses."""
        return tuple(key for term in self.sources for key in term.keys)

    @property
    def is_single(self) -> bool:
        """Whether one tensor goes to one."""
        terms = (*self.sources, *self.link.targets)
        return len(terms) == 2 and all(term.axis is None for term in terms)


def make_pieces(
    links: Sequence[Link], sources: Sequence[tuple[Term, ...]], reads: Mapping[str, Read], want: Manifest
) -> list[Piece]:
    """Work out what the links make. `reads` gives the tensor that the table has under each key.

    Sizes that shapes tell as well are left out where links differ in nothing else. Raises CkptfixError for a layout
    that does not fit.
    """
    plain = {layout for layout in {link.layout for link in links} if _sizes_differ(links, layout)}
    pieces: list[Piece] = []
    for link, terms in zip(links, sources, strict=True):
        sizes = tuple(link.sizes.items())
        made = _made(link, terms, sizes, reads, want)
        if link.layout in plain and sizes:
            try:
                shorter = _made(link, terms, (), reads, want)
            except CkptfixError:
                shorter = {}
            if same(shorter, made):
                sizes, made = (), shorter
        pieces.append(Piece(link, terms, sizes, made))
    return pieces


def same(some: Mapping[str, Expr], others: Mapping[str, Expr]) -> bool:
    """Tell whether the same keys are made in the same way."""
    return some.keys() == others.keys() and all(alike(expr, others[key]) for key, expr in some.items())


def alike(expr: Expr, other: Expr) -> bool:
    """Tell whether two expressions are the same but for the order in which sizes were found."""
    return expr == other or settled(expr) == settled(other)


def settled(expr: Expr) -> Expr:
    """Give the expression with its sizes in the order of their names: that in which they were found says nothing."""
    if isinstance(expr, Rearrange):
        terms = tuple(replace(term, source=settled(term.source)) for term in expr.terms)
        return replace(expr, terms=terms, sizes=tuple(sorted(expr.sizes)))
    if isinstance(expr, Resize | Channels | Crop | Pad):
        return replace(expr, source=settled(expr.source))
    return expr


def resized(piece: Piece, want: Manifest) -> Mapping[str, Expr]:
    """Give what the link makes in the end. Raises CkptfixError for a resize that does not fit."""
    if piece.link.resize is None:
        return piece.made
    rule = resize.Resize.model_validate({"op": "resize", "keys": piece.target} | dict(piece.link.resize))
    edit = rule.edit(Scope(piece.made, want))
    for fault in edit.faults:
        raise fault
    return {**piece.made, **{row.key: row.expr for row in edit.made}}


def _sizes_differ(links: Sequence[Link], layout: str | None) -> bool:
    return len({tuple(link.sizes.items()) for link in links if link.layout == layout}) > 1


def _made(
    link: Link,
    sources: tuple[Term, ...],
    sizes: tuple[tuple[str, int], ...],
    reads: Mapping[str, Read],
    want: Manifest,
) -> Mapping[str, Expr]:
    if link.layout is None:
        return {link.target_keys[0]: reads[sources[0].keys[0]]}
    rule = _rule(tuple(term.axis for term in sources), tuple(term.axis for term in link.targets), link.layout, sizes)
    keys = {name: key for number, term in enumerate(link.targets) for name, key in _names("to", number, term)}
    table: dict[str, Expr] = {
        name: reads[key] for number, term in enumerate(sources) for name, key in _names("from", number, term)
    }
    shapes = Manifest({name: want[key] for name, key in keys.items() if key in want})
    edit = rule.edit(Scope(table, shapes))
    for fault in edit.faults:
        raise fault
    return {keys[row.key]: row.expr for row in edit.made}


@lru_cache(maxsize=256)
def _rule(
    sources: tuple[str | None, ...], targets: tuple[str | None, ...], layout: str, sizes: tuple[tuple[str, int], ...]
) -> rearrange.Rearrange:
    return rearrange.Rearrange.model_validate(
        {
            "op": "rearrange",
            "from": [_pattern("from", number, axis) for number, axis in enumerate(sources)],
            "to": [_pattern("to", number, axis) for number, axis in enumerate(targets)],
            "layout": layout,
            "sizes": dict(sizes),
        }
    )


def _pattern(side: str, number: int, axis: str | None) -> str:
    return f"{side}{number}" if axis is None else f"{side}{number}.{{{axis}}}"


def _names(side: str, number: int, term: Term) -> list[tuple[str, str]]:
    """Name the tensors of a term plainly, so that one rule serves all links of a layout."""
    if term.axis is None:
        return [(f"{side}{number}", term.keys[0])]
    return [(f"{side}{number}.{place}", key) for place, key in enumerate(term.keys)]
