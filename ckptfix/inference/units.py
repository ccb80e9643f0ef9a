"""Find the repeated blocks of two models, and which block of one is which of the other.

A level is what repeats: `blocks.#`, `layer#.#`, each `#` a number. Its units are the blocks, in the order of their
numbers. The number of elements of a block survives renaming, splitting, fusing, stacking and transposing, so two levels
are compared by the sequences of these numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.inference.lexicon import GENERIC, TURNABLE, concept, is_purpose
from ckptfix.inference.names import read_name, similarity
from ckptfix.inference.reading import NUMBER
from ckptfix.tensors import Shape, TensorSpec

_TOLERANCE = 0.04
"""Blocks are alike whose sizes differ by less: a key's bias more or less."""
_MOST_CELLS = 4_000_000


class Unit(Struct):
    """One block: its numbers, and its tensors by their names inside the block."""

    index: tuple[int, ...]
    keys: dict[str, str] = field(default_factory=dict)
    numel: int = 0
    shapes: Counter[Shape] = field(default_factory=Counter)
    """The shapes inside, each sorted, so that turned ones are alike."""


class Level(Struct, dict=True):
    """What repeats, as a text with `#` for the numbers, and its units in order."""

    template: str
    units: list[Unit]

    @cached_property
    def numel(self) -> int:
        """The elements of all units together."""
        return sum(unit.numel for unit in self.units)

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys of all units."""
        return frozenset(key for unit in self.units for key in unit.keys.values())

    @property
    def depth(self) -> int:
        """How many numbers tell a unit."""
        return self.template.count("#")


def find_levels(tensors: Mapping[str, TensorSpec], reads: Mapping[str, str]) -> list[Level]:
    """List everything that repeats: whatever precedes a number, with at least two different numbers.

    `reads` says how a key is read, where that is not as it is written.
    """
    found: dict[str, dict[tuple[int, ...], Unit]] = {}
    for key, spec in tensors.items():
        text = reads.get(key, key)
        start = 0
        template = ""
        index: tuple[int, ...] = ()
        for number in NUMBER.finditer(text):
            template += text[start : number.start()] + "#"
            start = number.end()
            index += (int(number.group()),)
            prefix, rest = text[:start], text[start:]
            if not rest.strip("./_:"):
                continue
            unit = found.setdefault(template, {}).setdefault(index, Unit(index))
            unit.keys[_inside(prefix, rest)] = key
            if spec.shape:
                unit.numel += spec.numel
                unit.shapes[tuple(sorted(spec.shape))] += 1
    return [
        Level(template, [units[index] for index in sorted(units)])
        for template, units in found.items()
        if len(units) > 1 and 2 * sum(map(_is_block, units.values())) >= len(units)
    ]


def _is_block(unit: Unit) -> bool:
    """Tell a block from a mere numbered module: it has modules inside."""
    return len({read_name(rest).parent for rest in unit.keys}) > 1


def _inside(prefix: str, rest: str) -> str:
    """Name a tensor inside its block; names that repeat the block's (`b1/b1_conv`) are freed of it."""
    own = re.split(r"[./:]", prefix)[-1]
    if len(own) > 3:
        rest = rest.replace(own, "")
    return rest.lstrip("./_:")


class Pairing(Struct, frozen=True, dict=True):
    """Two levels whose units correspond: pairs in order, how much of the target they cover, and what speaks for it.

    `rivals` are levels that would do nearly as well.
    """

    source: Level
    target: Level
    pairs: tuple[tuple[Unit, Unit], ...]
    numel: int
    likeness: float
    rivals: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The part of the longer side's blocks that is paired."""
        return len(self.pairs) / max(len(self.source.units), len(self.target.units))

    @property
    def doubt(self) -> str:
        """Why the blocks may belong together otherwise; nothing where they may not."""
        if self.rivals:
            return f"the blocks {self.rivals[0]} fit as well"
        return "the blocks may be counted from the other end, as decoders are" if self.is_turnable else ""

    @cached_property
    def is_turnable(self) -> bool:
        """Tell whether all blocks are alike, of a decoder of feature maps, and not called so on both sides."""
        words = [{concept(word) for word in read_name(side.template).telling} for side in (self.source, self.target)]
        if len(self.pairs) < 2 or words[0] & words[1] or not (words[0] | words[1]) & TURNABLE:
            return False
        first = self.pairs[0][0]
        return all(_alike(first, unit) for pair in self.pairs for unit in pair)


def pair_levels(
    sources: Sequence[Level], targets: Sequence[Level], surroundings: Surroundings, *, use_names: bool = True
) -> Pairing | None:
    """Choose the two levels that correspond best.

    Most of the target covered counts first, then alike names and alike surroundings, then the finest units.
    """
    found: list[Pairing] = []
    most = 0
    for target in targets:
        for source in sources:
            if min(source.numel, target.numel) < 0.5 * most:
                continue
            if pairs := _align_either_way(source.units, target.units):
                covered = _covered(pairs)
                alike = _likeness(source.template, target.template) if use_names else 0.0
                around = surroundings.overlap(source.template, target.template)
                found.append(Pairing(source, target, tuple(pairs), covered, alike + around))
                most = max(most, covered)
    if not found:
        return None
    best = max(found, key=lambda pairing: _rank(pairing, most))
    return replace(best, rivals=tuple(_rivals(best, found)))


def _align_either_way(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[tuple[Unit, Unit]]:
    """Align blocks in order, or the other way round where that covers more: decoders are counted from either end."""
    pairs = align(sources, targets)
    if len(pairs) == min(len(sources), len(targets)):
        return pairs
    reverse = align(sources[::-1], targets)
    return max(pairs, reverse, key=_covered)


def _covered(pairs: Iterable[tuple[Unit, Unit]]) -> int:
    return sum(unit.numel for _, unit in pairs)


def _rank(pairing: Pairing, most: int) -> tuple[bool, float, int, int]:
    """Order pairings. A little less covered is as good: what counts then is the likeness, and finer units."""
    share = pairing.numel / max(most, 1)
    return (
        share > 0.85,
        round(pairing.likeness + pairing.share, 3),
        pairing.target.depth + pairing.source.depth,
        pairing.numel,
    )


def _rivals(best: Pairing, found: Iterable[Pairing]) -> Iterator[str]:
    """Name the levels elsewhere in the source, or in the target, that fit as well as the best."""
    for other in found:
        close = other.numel > 0.9 * best.numel and other.likeness > best.likeness - 0.2
        if not close or len(other.pairs) < len(best.pairs) or other.share < best.share - 0.2:
            continue
        if other.target is best.target and _apart(other.source, best.source):
            yield other.source.template
        elif other.source is best.source and _apart(other.target, best.target):
            yield other.target.template


def _apart(one: Level, other: Level) -> bool:
    return not one.keys & other.keys


class Surroundings:
    """What lies around the blocks of either side: the shapes beside them in the innermost module that has others."""

    def __init__(self, sources: Mapping[str, TensorSpec], targets: Mapping[str, TensorSpec]) -> None:
        """Take the tensors that are in no block, by the text that their keys are read as."""
        self._sides = sources, targets
        self._scopes: tuple[dict[str, str], dict[str, str]] = {}, {}

    def scope(self, side: Literal[0, 1], template: str) -> str:
        """Give the innermost module around a level that has something else inside."""
        known = self._scopes[side]
        if template not in known:
            path = template.partition("#")[0]
            while path:
                path = path[: path.rstrip(".").rfind(".") + 1]
                if any(key.startswith(path) for key in self._sides[side]):
                    break
            known[template] = path
        return known[template]

    def prepare(self, side: Literal[0, 1], levels: Iterable[Level]) -> None:
        """Find the scopes of all levels, so that each has only what is no deeper one's."""
        for level in levels:
            self.scope(side, level.template)

    def overlap(self, source: str, target: str) -> float:
        """Tell how much of what lies around the target's level has its like around the source's, 0 to 1."""
        have = [tuple(sorted(spec.shape)) for spec in self._around(0, source)]
        want = self._around(1, target)
        total = sum(spec.numel for spec in want)
        shared = 0
        for spec in want:
            shape = tuple(sorted(spec.shape))
            if shape in have:
                have.remove(shape)
                shared += spec.numel
        return shared / total if total else 0.0

    def _around(self, side: Literal[0, 1], template: str) -> list[TensorSpec]:
        own = self.scope(side, template)
        deeper = [scope for scope in set(self._scopes[side].values()) if scope != own and scope.startswith(own)]
        return [
            spec
            for key, spec in self._sides[side].items()
            if key.startswith(own) and not any(key.startswith(scope) for scope in deeper)
        ]


def _likeness(one: str, other: str) -> float:
    """Weigh the words of two levels; a purpose that only one of them has speaks against it."""
    words = [tuple(word for word in read_name(text).words if word not in GENERIC) for text in (one, other)]
    purposes = [{concept(word) for word in side if is_purpose(word)} - {"encoder"} for side in words]
    cost = 0.3 if purposes[0] != purposes[1] else 0.0
    if all(words):
        return similarity(words[0], words[1], {}) - cost
    return (0.25 if any(words) else 0.5) - cost


def align(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[tuple[Unit, Unit]]:
    """Pair units of like size, in order, as many as possible; of equally good ways, the one with the earliest."""
    if len(sources) == len(targets) and all(map(_alike, sources, targets)):
        return list(zip(sources, targets, strict=True))
    if len(sources) * len(targets) > _MOST_CELLS:
        return []
    # best[i][j]: the worth of pairing sources[i:] with targets[j:].
    best = [[0.0] * (len(targets) + 1) for _ in range(len(sources) + 1)]
    for i in range(len(sources) - 1, -1, -1):
        for j in range(len(targets) - 1, -1, -1):
            paired = _worth(sources[i], targets[j]) + best[i + 1][j + 1]
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs: list[tuple[Unit, Unit]] = []
    i = j = 0
    while i < len(sources) and j < len(targets):
        worth = _worth(sources[i], targets[j])
        if worth and best[i][j] == worth + best[i + 1][j + 1]:
            pairs.append((sources[i], targets[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _worth(one: Unit, other: Unit) -> float:
    """Weigh a pair of blocks: nothing unless they are of like size, then the more the more shapes they share."""
    if not _alike(one, other):
        return 0.0
    shared = (one.shapes & other.shapes).total() / max(one.shapes.total(), other.shapes.total(), 1)
    return other.numel * (0.5 + shared)


def _alike(one: Unit, other: Unit) -> bool:
    return abs(one.numel - other.numel) <= _TOLERANCE * max(one.numel, other.numel)
