"""What there is to write: links over the keys of the table, with each tensor used once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.errors import KeyCollision, PatternError
from ckptfix.expr import Expr, Read
from ckptfix.inference.generalise.expected import Piece, make_pieces, resized
from ckptfix.inference.generalise.terms import with_rest
from ckptfix.inference.link import Link, Term
from ckptfix.tensors import Manifest

_MARK = re.compile(r"[{}*]")


class Task(Struct, frozen=True):
    """The table before the rules, and what is to become of it.

    `again` gives a key of the table under which a tensor is needed once more, `copied` maps a target key to the one
    that it repeats, `expected` each target key to what makes it. `bases` maps branches of the table to where they move
    before the links are looked at, whose sources are then there.
    """

    table: Mapping[str, Expr]
    want: Manifest
    pieces: Sequence[Piece]
    dropped: Sequence[str]
    again: Mapping[str, str]
    copied: Mapping[str, str]
    filled: Sequence[str]
    expected: Mapping[str, Expr]
    bases: Mapping[str, str] = field(default_factory=dict)

    @property
    def layouts(self) -> list[Piece]:
        """The links that rearrange."""
        return [piece for piece in self.pieces if piece.link.layout is not None]

    def out_of_the_way(self) -> tuple[Task, Mapping[str, str]]:
        """Give new keys to those sources of layouts that a target key needs; also say which."""
        made = {key for piece in self.pieces for key in piece.link.target_keys}
        taken = {*self.table, *self.want, *self.again.values()}
        moved = {
            key: fresh_key(key, "source", taken)
            for piece in self.pieces
            if piece.link.layout is not None
            for key in piece.source_keys
            if key in made
        }
        pieces = [replace(piece, sources=with_keys(piece.sources, moved)) for piece in self.pieces]
        return replace(self, pieces=pieces), moved


def make_task(
    links: Sequence[Link],
    have: Manifest,
    want: Manifest,
    filled: Sequence[str],
    copied: Mapping[str, str],
    dropped: Sequence[str],
    strip: Sequence[str],
) -> Task:
    """Bring links to the keys of the table. Raises CkptfixError for a link that does not fit."""
    _check_keys(links, copied, filled, dropped)
    links = [with_rest(link) for link in links]
    stripped = {key: _strip(key, strip) for key in have}
    reads = {stripped[key]: Read(key, spec) for key, spec in have.items()}
    first: dict[str, Link] = {}
    kept: list[Link] = []
    terms: list[tuple[Term, ...]] = []
    again: dict[str, str] = {}
    copies = dict(copied)
    taken = {*reads, *want}
    for link in links:
        twice = [key for key in link.source_keys if key in first]
        if len(twice) == 1 and _is_plain(link) and _is_plain(first[twice[0]]):
            copies[link.target_keys[0]] = first[twice[0]].target_keys[0]
            continue
        names = {key: fresh_key(stripped[key], "again", taken) for key in twice}
        again |= {new: stripped[key] for key, new in names.items()}
        taken.update(names.values())
        first |= {key: link for key in link.source_keys if key not in first}
        kept.append(link)
        terms.append(with_keys(link.sources, {key: names.get(key, stripped[key]) for key in link.source_keys}))
    _check_rest(set(reads) - {stripped[key] for key in (*first, *dropped)}, kept)
    reads |= {new: reads[key] for new, key in again.items()}
    pieces = make_pieces(kept, terms, reads, want)
    expected: dict[str, Expr] = {}
    for piece in pieces:
        expected |= resized(piece, want)
    return Task(
        table={key: read for key, read in reads.items() if key not in again},
        want=want,
        pieces=pieces,
        dropped=[stripped[key] for key in dropped],
        again=again,
        copied={key: _origin(key, copies) for key in copies},
        filled=filled,
        expected=expected,
    )


def _check_keys(
    links: Sequence[Link], copied: Mapping[str, str], filled: Sequence[str], dropped: Sequence[str]
) -> None:
    """Raise KeyCollision for a target key that is made twice, PatternError for a key that no pattern can name."""
    made = [*(key for link in links for key in link.target_keys), *copied, *filled]
    for key, count in Counter(made).items():
        if count > 1:
            raise KeyCollision(f"'{key}' of the target is made twice")
    for key in (*made, *dropped, *(key for link in links for key in link.source_keys)):
        if _MARK.search(key):
            raise PatternError(f"'{key}' holds a brace or a '*', so no pattern can name it")


def _check_rest(rest: Collection[str], links: Sequence[Link]) -> None:
    """Raise KeyCollision where a key of the table that stays is one that a link makes."""
    for link in links:
        for key in link.target_keys:
            if key in rest:
                raise KeyCollision(
                    f"'{key}' is in the way of what is made from '{link.source_keys[0]}'", hint="drop it"
                )


def fresh_key(key: str, word: str, taken: Collection[str]) -> str:
    """Make a key out of another that nothing else has."""
    while key in taken:
        key = f"{word}.{key}"
    return key


def _strip(key: str, prefixes: Iterable[str]) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def _is_plain(link: Link) -> bool:
    return link.layout is None and link.resize is None


def with_keys(terms: Sequence[Term], names: Mapping[str, str]) -> tuple[Term, ...]:
    """Give terms with new keys for those that have one."""
    return tuple(Term(tuple(names.get(key, key) for key in term.keys), term.axis) for term in terms)


def _origin(key: str, copies: Mapping[str, str]) -> str:
    """Follow copies of copies."""
    seen = {key}
    while (key := copies[key]) in copies and key not in seen:
        seen.add(key)
    return key
