"""What order tells: numbers that run in step, and places that are defined in step."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ckptfix.inference.assignment import Pair
from ckptfix.inference.shapes import is_turned
from ckptfix.inference.slots import Slot, is_sorted

_SEGMENT = re.compile(r"(?:(?<=\.)|^)[0-9]+(?=\.|$)")
_UNORDERED = {"q", "k", "v", "gate", "up", "cross q", "cross k", "cross v"}


def rank_series(
    sources: Sequence[Slot], targets: Sequence[Slot], allowed: Mapping[Pair, object]
) -> Iterator[tuple[Pair, float]]:
    """Weigh places that differ by numbers alone: the first is the first, where all fit so."""
    others = _series(targets)
    for members in _series(sources):
        for alike in others:
            if len(alike) != len(members):
                continue
            if _extents(sources, members) == _extents(targets, alike)[::-1] != _extents(targets, alike):
                members = sorted(members, key=lambda i: sources[i].name.numbers[::-1])  # `norm1.0` is `0.norm1` there
            if not all(pair in allowed for pair in zip(members, alike, strict=True)):
                continue
            for rank, i in enumerate(members):
                for place, j in enumerate(alike):
                    if (i, j) in allowed:
                        yield (i, j), 1.0 if rank == place else -1.0


def _series(slots: Sequence[Slot]) -> list[list[int]]:
    """Group places that differ by numbers alone, in the order of the numbers."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, slot in enumerate(slots):
        if slot.name.numbers:
            groups.setdefault((slot.name.words, slot.name.kind, len(slot.shapes[0])), []).append(i)
    return [
        _rank(slots, group)
        for group in groups.values()
        if len({slots[i].name.numbers for i in group}) == len(group) > 1  # `h_to_4h` and `4h_to_h` are no series
    ]


def _rank(slots: Sequence[Slot], group: Sequence[int]) -> list[int]:
    """Sort places by their numbers: by the last that tells all apart, as that of `c3x3_1` does, else by all of them."""
    columns = list(zip(*(slots[i].name.numbers for i in group), strict=False))
    telling = [column for column in columns if len(set(column)) == len(group)]
    if not telling:
        return sorted(group, key=lambda i: slots[i].name.numbers)
    return [i for _, i in sorted(zip(telling[-1], group, strict=True))]


def _extents(slots: Sequence[Slot], members: Sequence[int]) -> list[int]:
    """Count the different numbers in each position."""
    return [len(set(numbers)) for numbers in zip(*(slots[i].name.numbers for i in members), strict=False)]


def is_lockstep(sources: Sequence[Slot], targets: Sequence[Slot], layouts: Mapping[Pair, Sequence[str | None]]) -> bool:
    """Tell whether the n-th fits the n-th throughout, matrices all as they are or all transposed.

    Not where the keys are sorted, nor where the numbers that both sides have say otherwise.
    """
    if len(sources) != len(targets) or is_sorted(sources):
        return False
    pairs = range(len(sources))
    if not all((i, i) in layouts for i in pairs):
        return False
    turned = {is_turned(layouts[i, i][0]) for i in pairs if len(targets[i].shapes[0]) == 2}
    return len(turned) <= 1 and not _numbers_cross(sources, targets, layouts)


def may_follow(source: Slot, target: Slot, roles: set[str]) -> bool:
    """Tell whether the order of definition may speak for a pair of these roles.

    Libraries define queries, keys, values and gates in any order; of vectors a name must say which parameter they are.
    """
    alike = len(roles) == 1 or not roles & _UNORDERED
    return alike and (len(target.shapes[0]) > 1 or source.name.kind == target.name.kind)


def _numbers_cross(sources: Sequence[Slot], targets: Sequence[Slot], allowed: Mapping[Pair, object]) -> bool:
    """Tell whether two places and more have their own number elsewhere on the other side."""
    crossing = [
        i
        for i, j in allowed
        if i != j and sources[i].name.numbers == targets[j].name.numbers != targets[i].name.numbers != ()
    ]
    return len(set(crossing)) > 1


def find_shifted(sources: Sequence[Slot], targets: Sequence[Slot], moved: Collection[str] = ()) -> set[str]:
    """Find the places whose numbers say nothing: both sides count from the same word on, but not alike.

    So it is where a layer was put in between or in front, as in the lists that `moved` names by the path before their
    numbers. Where one side only goes on for longer, numbers do say something.
    """
    places = [slot.place for slot in sources], [slot.place for slot in targets]
    counted = [count_members(side) for side in places]
    ranks = [{slot.place: len(slot.shapes[0]) for slot in side} for side in (sources, targets)]
    other_ranks = {place for place in ranks[0].keys() & ranks[1].keys() if ranks[0][place] != ranks[1][place]}
    unlike = {prefix for place in other_ranks for prefix, _ in _numbers_in(place)}
    shifted = set(moved) | {
        prefix
        for prefix in counted[0].keys() & counted[1].keys()
        if any(one != other for one, other in zip(*(sorted(side[prefix]) for side in counted), strict=False))
        or (prefix in unlike and len(counted[0][prefix]) != len(counted[1][prefix]))
    }
    return {place for side in places for place in side if shifted & {prefix for prefix, _ in _numbers_in(place)}}


def count_members(places: Iterable[str]) -> dict[str, set[int]]:
    """Collect the whole segments that are numbers, by the path before them."""
    found: dict[str, set[int]] = {}
    for place in places:
        for prefix, number in _numbers_in(place):
            found.setdefault(prefix, set()).add(number)
    return found


def _numbers_in(place: str) -> Iterator[tuple[str, int]]:
    """Give the segments of a path that are numbers, each with the path before it."""
    for number in _SEGMENT.finditer(place):
        yield place[: number.start()], int(number[0])
