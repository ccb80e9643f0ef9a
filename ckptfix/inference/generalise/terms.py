"""Write the terms of a link as patterns: `experts.0.w1`, `experts.1.w1` along `e` are `experts.{e}.w1`."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ckptfix.inference.link import Link, Term
from ckptfix.inference.reading import NUMBER

_SEVERAL = 3
"""Tensors of a layout with more than one on a side."""


def sides_of(sources: Sequence[Term], targets: Sequence[Term]) -> tuple[str, ...]:
    """Give each term with a placeholder for the number that counts along its axis."""
    return tuple(_with_placeholder(term) for term in (*sources, *targets))


def listed_sides(sources: Sequence[Term], targets: Sequence[Term]) -> tuple[str, ...]:
    """Give each term with a placeholder that, in a pattern, matches no other numbers than those along its axis."""
    return tuple(map(_listed, sources)) + tuple(map(_with_placeholder, targets))


def with_rest(link: Link) -> Link:
    """Write `...` for the last axis of several tensors where it is the same in all: `e g c, e u c -> e (g+u) c`."""
    sides = [side.split(", ") for side in (link.layout or "").split(" -> ")]
    last = {term.rpartition(" ")[2] for terms in sides for term in terms}
    if sum(map(len, sides)) < _SEVERAL or len(last) > 1:
        return link
    [axis] = last
    if not axis.isidentifier() or axis in link.sizes:
        return link
    return replace(link, layout=" -> ".join(", ".join(_with_dots(term) for term in terms) for terms in sides))


def _with_dots(term: str) -> str:
    return f"{term.rpartition(' ')[0]} ...".lstrip()


def _with_placeholder(term: Term) -> str:
    if term.axis is None:
        return term.keys[0]
    head, tail = _around(term)
    return f"{head}{{{term.axis}}}{tail}"


def _listed(term: Term) -> str:
    if term.axis is None:
        return term.keys[0]
    head, tail = _around(term)
    numbers = [str(place) for place in range(len(term.keys))]
    kind = "|".join(numbers) if len(numbers) > 1 else f"/{numbers[0]}/"
    return f"{head}{{{term.axis}:{kind}}}{tail}"


def _around(term: Term) -> tuple[str, str]:
    """Give the text before and after the number that counts from 0; of a single key, before and after its last 0.

    Raises ValueError where there is none.
    """
    first = term.keys[0]
    for number in reversed(list(NUMBER.finditer(first))):
        head, tail = first[: number.start()], first[number.end() :]
        if all(key == f"{head}{place}{tail}" for place, key in enumerate(term.keys)):
            return head, tail
    raise ValueError(f"the keys along '{term.axis}' do not count from 0: {', '.join(term.keys[:2])}, ...")
