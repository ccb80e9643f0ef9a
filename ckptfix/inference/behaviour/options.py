"""The links that an ambiguous group may stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, permutations
from math import gcd

from ckptfix.inference.behaviour.division import divide, is_division
from ckptfix.inference.behaviour.questions import Doubt, Links, Sides
from ckptfix.inference.link import Link, Term
from ckptfix.inference.rotary import TURN
from ckptfix.inference.shapes import relate
from ckptfix.tensors import Manifest

_MOST_OPTIONS = 120


def list_options(doubts: Sequence[Doubt], have: Manifest, want: Manifest) -> list[Links]:
    """List what is possible in all blocks alike. Empty where there are too many ways, or none that fits."""
    sides = [pair for doubt in doubts for pair in doubt.sides]
    if all(is_division(*pair, have, want) for pair in sides):
        ways = divide(sides, have, want)
    else:
        ways = _exchange(doubts, have, want)
    options = list(islice(ways, _MOST_OPTIONS + 1))
    if doubts[0].is_of_heads:
        options += _turn(sides, want)
    return options if len(options) <= _MOST_OPTIONS else []


def _turn(sides: Sequence[Sides], want: Manifest) -> Iterator[Links]:
    """Permute the rows of rotary heads, of every size that divides the rows of all queries and keys."""
    rows = gcd(*(want[targets[0]].shape[0] for _, targets in sides))
    for size in range(4, rows + 1, 2):  # of two rows, either order is the same
        if rows % size:
            continue
        for layout in list(TURN.values())[: 1 if size == 4 else 2]:  # of two by two, one way is the other
            yield tuple(
                Link(
                    (Term.of(sources[0]),),
                    (Term.of(targets[0]),),
                    layout,
                    {"h": want[targets[0]].shape[0] // size, "two": 2},
                )
                for sources, targets in sides
            )


def _exchange(doubts: Sequence[Doubt], have: Manifest, want: Manifest) -> Iterator[Links]:
    """Give each module of the target one of the candidates' modules, its tensors as they are or transposed."""
    holders = [doubt.holders() for doubt in doubts]
    if len({(len(sources), len(targets)) for sources, targets in holders}) > 1:
        return
    sources, targets = holders[0]
    for chosen in permutations(range(len(sources)), len(targets)):
        for turn in (0, 1):
            links: list[Link] = []
            for doubt, (own_sources, own_targets) in zip(doubts, holders, strict=True):
                places = {target: own_sources[number] for target, number in zip(own_targets, chosen, strict=True)}
                links += _place(doubt, places, turn, have, want)
            if len(links) == sum(len(doubt.targets) for doubt in doubts):
                yield tuple(links)


def _place(doubt: Doubt, places: Mapping[str, str], turn: int, have: Manifest, want: Manifest) -> Iterator[Link]:
    """Link every target key to the candidate in its place; `turn` takes the second layout where there is one."""
    turnable = False
    links: list[Link] = []
    for target, candidates in doubt.candidates.items():
        found = [key for key in candidates if doubt.holder(key) == places[doubt.holder(target)]]
        layouts = relate(have[found[0]].shape, want[target].shape) if len(found) == 1 else []
        if layouts:
            turnable |= len(layouts) > 1
            layout = layouts[min(turn, len(layouts) - 1)]
            links.append(Link((Term.of(found[0]),), (Term.of(target),), layout))
    if turnable or not turn:
        yield from links
