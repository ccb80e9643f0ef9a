"""Learn a conversion from a checkpoint that somebody's script has already converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.counts import count
from ckptfix.formats import Checkpoint, Reader
from ckptfix.inference.example.bits import Tensors
from ckptfix.inference.example.echo import Trial, echo_links
from ckptfix.inference.example.numbers import number_of
from ckptfix.inference.example.resized import find_resized
from ckptfix.inference.example.result import ExampleResult, Taken
from ckptfix.inference.example.rows import as_crop, find_taken
from ckptfix.inference.example.search import (
    Sides,
    find_holders,
    link_fused,
    link_split,
    link_whole,
    pieces_inside,
    proven,
)
from ckptfix.inference.example.twins import Names
from ckptfix.inference.link import Link, Open

__all__ = ["ExampleResult", "Taken", "find_links"]

_NOTHING = "its values come from no tensor of the source"


def find_links(source: Checkpoint, example: Checkpoint) -> ExampleResult:
    """Find by value which source tensors make which tensors of the example, and how; all is compared to the bit.

    Only what values cannot tell, as among tensors of zeros, is decided by names; `notes` and the confidence say so.
    Raises what reading raises.
    """
    with Reader() as reader:
        sides = Sides(Tensors(source, reader), Tensors(example, reader))
        found = _Found(sides)
        _link_alike(found)
        _link_parts(found)
        found.add(*echo_links(sides, found.links, found.left(), found.free, Trial(source, example, reader)))
        _link_twins(found)
        _link_rows(found)
        _look_for_growth(found)
        for link in find_resized(source, example, reader, found.left(), found.free, _names(found)):
            found.add(link)
        return found.result()


class _Found(Struct):
    """What has been found so far."""

    sides: Sides
    links: list[Link] = field(default_factory=list)
    fills: dict[str, float] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    paired: list[str] = field(default_factory=list)
    """Targets whose values others have as well, so that names chose the source."""
    hints: dict[str, Open] = field(default_factory=dict)
    """What is known of targets, for those that nothing else explains."""
    free: set[str] = field(default_factory=set)
    """The keys of the source that nothing has used."""
    _done: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.free = set(self.sides.have)

    def left(self) -> list[str]:
        """Give the target keys that nothing is known of."""
        return [key for key in self.sides.want if key not in self._done]

    def add(self, *links: Link) -> None:
        """Take links; their sources are used."""
        for link in links:
            self.links.append(link)
            self.free -= set(link.source_keys)
            self._done |= set(link.target_keys)

    def copy(self, target: str, other: str) -> None:
        """Note a target that repeats another one."""
        self.copies[target] = other
        self._done.add(target)

    def take(self, taken: Taken) -> None:
        """Note a target that rows of a source make."""
        self.taken.append(taken)
        self.free.discard(taken.source)
        self._done.add(taken.target)

    def fill(self, target: str, number: float) -> None:
        """Note a target that holds one number."""
        self.fills[target] = number
        self._done.add(target)

    def result(self) -> ExampleResult:
        """Put it all in the order of the example."""
        place = {key: number for number, key in enumerate(self.sides.want)}
        have, want = self.sides.have, self.sides.want
        links = sorted(self.links, key=lambda link: min(place[key] for key in link.target_keys))
        made = [(link.source_keys, link.target_keys) for link in links]
        made += [((taken.source,), (taken.target,)) for taken in self.taken]
        casts = {
            key: want[key].dtype
            for sources, keys in made
            for key in keys
            if {have[source].dtype for source in sources} != {want[key].dtype}
        }
        dtypes = sorted(set(casts.values()))
        numbers = [sum(to is dtype for to in casts.values()) for dtype in dtypes]
        noted = [
            f"{count(number, 'tensor')} {'was' if number == 1 else 'were'} cast to {dtype}"
            for dtype, number in zip(dtypes, numbers, strict=True)
        ]
        if self.paired:
            paired = sorted(self.paired, key=place.__getitem__)
            shown = ", ".join(paired[:3]) + (", ..." if len(paired) > 3 else "")
            noted.append(f"{len(paired)} targets hold what others do too, and were paired by name: {shown}")
        return ExampleResult(
            links=tuple(links),
            unexplained={key: self.hints.get(key, Open(_NOTHING)) for key in self.left()},
            unused=tuple(key for key in have if key in self.free),
            notes=(*self.notes, *noted),
            fills=self.fills,
            copies=self.copies,
            taken=tuple(self.taken),
            casts=casts,
        )


def _link_alike(found: _Found) -> None:
    """Link the tensors that hold the same numbers as one other, and as no third."""
    sources, targets = found.sides.classes()
    for kind, keys in targets.items():
        candidates = sources.get(kind, [])
        if len(keys) == len(candidates) == 1 and (kind[1] == 1 or not found.sides.is_constant(keys[0])):
            link = link_whole(found.sides, candidates[0], keys[0])
            if link is not None:
                found.add(proven(found.sides, link))
            else:
                why = f"it holds the numbers of '{candidates[0]}' in no order that a layout says"
                found.hints[keys[0]] = Open(why, (candidates[0],))


def _link_parts(found: _Found) -> None:
    """Link what was put together or taken apart."""
    sides = found.sides
    sources, targets = sides.classes()
    alike = {key for kind, keys in targets.items() if kind in sources for key in keys}
    left = [key for key in found.left() if key not in alike and not sides.is_constant(key)]
    for target in left:
        fused = link_fused(sides, target, found.free)
        if fused is not None:
            found.add(proven(sides, fused))
    for source, pieces in find_holders(sides, [key for key in left if key in found.left()], found.free).items():
        link, copies = link_split(sides, source, pieces)
        if link is not None and source in found.free:
            found.add(proven(sides, link))
            for target, other in copies.items():
                found.copy(target, other)
        else:
            why = f"it is a part of '{source}', whose rest goes elsewhere"
            found.hints |= {piece.key: Open(why, (source,)) for piece in pieces}


def _names(found: _Found) -> Names:
    """Learn from the links of one tensor to one."""
    pairs = [link.pair for link in found.links if link.pair]
    return Names.learn(pairs, list(found.sides.have), list(found.sides.want))


def _link_twins(found: _Found) -> None:
    """Link the tensors of equal values by their names; what is left over is a copy, or filled with a number."""
    sides = found.sides
    sources, targets = sides.classes()
    left = set(found.left())
    for kind, all_keys in targets.items():
        keys = [key for key in all_keys if key in left]
        candidates = [key for key in sources.get(kind, ()) if key in found.free]
        if keys and candidates:
            _choose(found, candidates, keys)
        _settle(found, [key for key in keys if key in found.left()], all_keys)


def _choose(found: _Found, candidates: list[str], keys: list[str]) -> None:
    """Pair equal tensors by name. One of them on each side is no choice, unless it might as well be a number."""
    links = []
    for choice in _names(found).choose(candidates, keys):
        link = link_whole(found.sides, choice.source, choice.target)
        if link is not None:
            why = "equal to the bit, as others are too; chosen by name"
            links.append(replace(link, confidence=choice.confidence, why=why, evidence=frozenset({"values", "names"})))
    found.add(*links)
    if len(links) == len(keys) == len(candidates) == 1:
        found.notes.append(f"{keys[0]}: one number only, the same as in '{candidates[0]}', and taken from there")
    else:
        found.paired += [link.target_keys[0] for link in links]


def _settle(found: _Found, keys: Sequence[str], alike: Iterable[str]) -> None:
    """Account for targets without a source of their own."""
    sides = found.sides
    if not keys:
        return
    linked = {key for link in found.links for key in link.target_keys}
    for key in keys:
        if sides.is_constant(key):
            number = number_of(sides.known_target(key).bits, sides.want[key].dtype)
            found.fill(key, number)
            if number not in (0, 1):
                found.notes.append(f"'{key}' is {number:g} throughout, and so is no source: filled with that")
            continue
        twin = next((other for other in alike if other in linked and _same(sides, key, other)), None)
        if twin is not None:
            found.copy(key, twin)


def _link_rows(found: _Found) -> None:
    """Link what holds some rows of a source."""
    all_taken = list(find_taken(found.sides, found.left(), frozenset(found.free)))
    takers = Counter(taken.source for taken in all_taken)
    for taken in all_taken:
        link = as_crop(found.sides, taken) if takers[taken.source] == 1 else None
        if link is not None:
            found.add(link)
        else:
            found.take(taken)


def _look_for_growth(found: _Found) -> None:
    """Say where a source lies in a target: the other rows may be the architecture's own."""
    for target in found.left():
        for piece in pieces_inside(found.sides, target, found.free):
            why = f"it holds all of '{piece.key}'; pad with fill: target keeps the rows that are new"
            found.hints[target] = Open(why, (piece.key,))


def _same(sides: Sides, key: str, other: str) -> bool:
    left, right = sides.known_target(key).bits, sides.known_target(other).bits
    return sides.want[key] == sides.want[other] and bool((left == right).all())
