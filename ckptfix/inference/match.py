"""Match the places of one kind of block with those of another: by shape, by name, by role, by what is beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ckptfix.inference.assignment import Board, Pair, assign
from ckptfix.inference.candidate import TURNED_OR_NOT, Match, reserve
from ckptfix.inference.fusion import Fusing
from ckptfix.inference.leaders import find_leaders, find_parents
from ckptfix.inference.link import Evidence
from ckptfix.inference.lists import find_moved
from ckptfix.inference.names import conflict, kinds_agree, similarity, tail
from ckptfix.inference.order import find_shifted, is_lockstep, may_follow, rank_series
from ckptfix.inference.shapes import is_turned, relate, relate_stacked
from ckptfix.inference.slots import (
    Slot,
    is_sorted,
    stack_slots,
    tell_roles,
    word_weights,
)

_ONE_NAMING = 0.8
"""Of the places of one side, what the other has by the same name, for names to mean the same on both."""

Convention = tuple[bool, int, int, str]
"""What a layout is a convention of: whether it is of blocks, the ranks of both sides, and the module that it is for.

What is called a kernel is laid out alike in the whole file, whatever it is for.
"""
Conventions = Mapping[Convention, str | None]


@dataclass(frozen=True)
class Allowed:
    """What may be used as evidence. That shapes must fit is no evidence but a condition, and always holds."""

    names: bool = True
    shapes: bool = True
    order: bool = True


class Matching:
    """The slots of both sides, what may become what, and what speaks for it."""

    def __init__(
        self,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        allowed: Allowed,
        *,
        inside: bool,
        conventions: Conventions | None = None,
        unique: frozenset[str] = frozenset(),
        repeated: frozenset[str] = frozenset(),
        scopes: frozenset[tuple[str, str]] = frozenset(),
        may_resize: Callable[[Slot, Slot], bool] | None = None,
        in_order: bool = True,
    ) -> None:
        """Take the slots. With `may_resize` only pairs that it allows are made, by their names alone.

        `in_order` says whether the order of definition may speak where everything fits place by place.
        """
        self.allowed = allowed
        self.inside = inside
        self.settled = conventions is not None
        self.conventions = conventions or {}
        self.unique = unique
        self.repeated = repeated
        self.scopes = scopes
        self.may_resize = may_resize
        self.in_order = in_order and may_resize is None
        self.sources = stack_slots(sources, targets)
        self.targets = stack_slots(targets, sources)
        self.source_roles = tell_roles(self.sources) if allowed.names else {}
        self.target_roles = tell_roles(self.targets)
        self.moved = list(find_moved(self.sources, self.targets)) if allowed.order else []
        self.shifted = find_shifted(self.sources, self.targets, {moved.prefix for moved in self.moved})
        self.turned = self._find_turned()
        self.turns = any(map(is_turned, self.conventions.values()))
        self.source_places = {slot.place for slot in self.sources}
        self.target_places = {slot.place for slot in self.targets}
        same = self.source_places & self.target_places
        self.one_naming = not inside and len(same) >= _ONE_NAMING * min(
            len(self.source_places), len(self.target_places)
        )
        self.weights = word_weights([*self.sources, *self.targets])
        ordered = allowed.order and not is_sorted(self.sources)
        self.source_leaders = find_leaders(self.sources, ordered=ordered)
        self.target_leaders = find_leaders(self.targets, ordered=True)
        self.apart = 1.5 if ordered else 0.5  # what it costs to go elsewhere than one's leader

    def solve(self) -> list[Match]:
        """Give all matches, certain or not."""
        composed = [] if self.may_resize else list(self._fusing().matches())
        taken_sources = {slot.place for match in composed for slot in match.sources}
        taken_targets = {slot.place for match in composed for slot in match.targets}
        sources = [slot for slot in self.sources if slot.place not in taken_sources]
        targets = [slot for slot in self.targets if slot.place not in taken_targets]
        return [*composed, *self._single(sources, targets, composed)]

    def _fusing(self) -> Fusing:
        return Fusing(self.sources, self.targets, self.source_roles, self.target_roles, self.weights, self.turned)

    def _find_turned(self) -> bool | None:
        """Tell whether the matrices of this file are transposed; None where that is not known."""
        votes = {
            layout
            for kind, layout in self.conventions.items()
            if kind[1:3] == (2, 2) and (kind[0] == self.inside or kind[3] == "kernel")
        }
        return votes.pop() is not None if len(votes) == 1 else None

    def _single(self, sources: Sequence[Slot], targets: Sequence[Slot], known: Sequence[Match]) -> list[Match]:
        """Assign, take what is certain, let it vouch for its company, and assign again until nothing changes."""
        layouts = {
            (i, j): options
            for i, source in enumerate(sources)
            for j, target in enumerate(targets)
            if (options := self._layouts(source, target))
        }
        base = {(i, j): self._score(sources[i], targets[j], options[0]) for (i, j), options in layouts.items()}
        base = self._with_order(sources, targets, base, layouts)
        certain: set[Pair] = set()
        anchors = [
            (source, target)
            for match in known
            if match.is_placed
            for source in match.sources
            for target in match.targets
        ]
        for _ in range(5):
            vouched = anchors + [(sources[i], targets[j]) for i, j in certain]
            scores = self._with_company(sources, targets, base, vouched)
            pairs = assign({pair: score for pair, score in scores.items() if score > -2})
            board = Board(scores, pairs)
            found = [self._judge(i, j, sources, targets, board, layouts) for j, i in pairs.items()]
            now = {(i, j) for (j, i), match in zip(pairs.items(), found, strict=True) if match.is_placed}
            if now == certain:
                break
            certain = now
        return found

    def _judge(
        self,
        i: int,
        j: int,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        board: Board,
        layouts: Mapping[Pair, list[str | None]],
    ) -> Match:
        margin, rivals = board.margin(i, j)
        score = board.scores[i, j]
        roles = self.source_roles.get(sources[i].place, ""), self.target_roles.get(targets[j].place, "")
        why = TURNED_OR_NOT if len(layouts[i, j]) > 1 and self.settled else reserve(sources[i], targets[j], roles)
        shape = self._shape_support(sources[i], targets[j], alone=board.is_alone(i, j))
        return Match(
            (sources[i],),
            (targets[j],),
            layouts[i, j][0],
            score + shape,
            margin,
            self._evidence(sources[i], targets[j], layouts[i, j][0], score),
            tuple(sources[rival] for rival in rivals),
            why,
            tuple(layouts[i, j]),
            self.inside,
        )

    def _evidence(self, source: Slot, target: Slot, layout: str | None, score: float) -> set[Evidence]:
        """Say what the score of a pair rests on: its names, or its place among others."""
        named = self._score(source, target, layout)
        evidence: set[Evidence] = {"shapes"}
        if named > 0.4:
            evidence.add("names")
        if score > named + 0.4:
            evidence.add("order")
        return evidence

    def _layouts(self, source: Slot, target: Slot) -> list[str | None]:
        """List the layouts that serve in every block, the plainest first; those that the convention allows."""
        alike = kinds_agree(source.name, target.name) and source.number == target.number
        if not alike or len(source.shapes) != len(target.shapes):
            return []
        if self.may_resize is not None:
            return [None] if self.may_resize(source, target) else []
        related = relate_stacked if source.terms[0].axis or target.terms[0].axis else relate
        possible = [related(have, want) for have, want in zip(source.shapes, target.shapes, strict=True)]
        shared = [layout for layout in possible[0] if all(layout in others for others in possible)]
        kind = convention(source, target, inside=self.inside)
        if kind in self.conventions:
            usual = self.conventions[kind]
            same = [layout for layout in shared if is_turned(layout) == is_turned(usual)]
            return [usual] if usual in shared else same or shared
        if len(shared) > 1 and len(source.shapes[0]) != len(target.shapes[0]) and self.turned is not None:
            return [layout for layout in shared if is_turned(layout) == self.turned] or shared
        foreign = source.place.endswith("kernel") and not target.place.endswith("kernel")
        foreign |= not source.name.kind and target.owner == "Linear"  # a matrix that is applied from the other side
        plain = len(shared) > 1 and not is_turned(shared[0]) and "(" not in (shared[0] or "")
        if plain and self.settled and not self.turns and not foreign:
            return shared[:1]  # nothing in this file is transposed
        return shared

    def _score(self, source: Slot, target: Slot, layout: str | None) -> float:
        """Weigh what speaks for a pair: alike names, equal roles; moved numbers cost a little."""
        score = 0.0 if layout is None else -0.2
        if _becomes_filters(source, target):
            score -= 1.0  # a matrix is seldom one of filters: more than its size must speak for that
        if (source.place in self.repeated) != (target.place in self.repeated):
            score -= 1.5  # what repeats does not become what stands alone, nor the other way
        if not self.allowed.names:
            return score
        score += 2.0 * similarity(source.name.words, target.name.words, self.weights)
        one, other = self.source_roles.get(source.place, ""), self.target_roles.get(target.place, "")
        if one and other:
            score += 2.0 if one == other else -3.0
        elif one or other:
            score -= 0.3
        if source.place in self.shifted or target.place in self.shifted:
            pass  # the same number stands for another layer there
        elif source.place == target.place:
            score += 1.5
        elif not self.inside and (source.place in self.target_places or target.place in self.source_places):
            score -= 6.0 if self.one_naming else 2.0  # the other side has a place of that very name
        elif _is_path_within(source.place, target.place):
            score += 0.7  # the same path, but for what it is wrapped in
        elif source.name.numbers and source.name.numbers == target.name.numbers:
            score += 0.2
        if source.name.kind == target.name.kind and source.name.kind:
            score += 0.2
        if not source.name.kind and tail(source.place, 1) == tail(target.place, 1):
            score += 0.4  # a parameter of that very name: `weight_ih_l0`, not `weight_ih_l0_reverse`
        return score + self._scope(source, target) - conflict(source.name, target.name)

    def _scope(self, source: Slot, target: Slot) -> float:
        """Let places count that lie where blocks are that correspond."""
        if not self.scopes or source.label == target.label == "":
            return 0.0
        one, other = source.place.removesuffix(source.label), target.place.removesuffix(target.label)
        if (one, other) in self.scopes:
            return 0.8
        elsewhere = {scope for scope, _ in self.scopes}, {scope for _, scope in self.scopes}
        return -1.0 if one in elsewhere[0] and other in elsewhere[1] else 0.0

    def _with_order(
        self,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        scores: Mapping[Pair, float],
        layouts: Mapping[Pair, list[str | None]],
    ) -> dict[Pair, float]:
        """Let numbers count, and the order of definition where everything fits place by place."""
        ranked = dict(scores)
        if not self.allowed.order:
            return ranked
        for pair, bonus in rank_series(sources, targets, scores):
            ranked[pair] += bonus
        for i, j in scores:
            for moved in self.moved:
                ranked[i, j] += 2.0 * moved.judge(sources[i].place, targets[j].place)
        if self.in_order and is_lockstep(sources, targets, layouts):
            for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
                roles = {self.source_roles.get(source.place, ""), self.target_roles.get(target.place, "")}
                if may_follow(source, target, roles):
                    ranked[i, i] += 0.8
        return ranked

    def _with_company(
        self,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        scores: Mapping[Pair, float],
        vouched: Sequence[tuple[Slot, Slot]],
    ) -> dict[Pair, float]:
        """Let certain neighbours vouch: the parameters of one module go to one module, a norm goes with its leader."""
        company: dict[tuple[str, str], set[tuple[str, str]]] = {}
        leaders: dict[str, set[str]] = {}
        for source, target in vouched:
            leaders.setdefault(source.place, set()).add(target.place)
            for one, other in zip(find_parents(source), find_parents(target), strict=False):
                company.setdefault((one, other), set()).add((source.place, target.place))
        joined: dict[Pair, float] = {}
        for (i, j), score in scores.items():
            own = {(sources[i].place, targets[j].place)}
            bonus = 0.0
            for depth, pair in enumerate(zip(find_parents(sources[i]), find_parents(targets[j]), strict=False)):
                votes = len(company.get(pair, own) - own)
                bonus += min(votes, 2) * (0.8 if depth == 0 else 0.15)
            led = self.source_leaders.get(sources[i].place), self.target_leaders.get(targets[j].place)
            if led[0] is not None and led[1] is not None and led[0] in leaders:
                bonus += 1.0 if led[1] in leaders[led[0]] else -self.apart
            joined[i, j] = score + bonus
        return joined

    def _shape_support(self, source: Slot, target: Slot, *, alone: bool) -> float:
        """Let a shape speak for a pair that nothing else could be, where it is more than a vector."""
        if self.may_resize is not None or not self.allowed.shapes or _becomes_filters(source, target):
            return 0.0
        if source.place in self.unique and target.place in self.unique:
            many = len(target.shapes[0]) > 2
            return 1.5 if many else 0.0 if conflict(source.name, target.name) else 1.0
        if not alone or conflict(source.name, target.name):
            return 0.0
        return 1.0 if self.inside else 0.2


def convention(source: Slot, target: Slot, *, inside: bool) -> Convention:
    """Give what the layout of a pair is a convention of."""
    ranks = len(source.shapes[0]), len(target.shapes[0])
    return (False, *ranks, "kernel") if source.place.endswith("kernel") else (inside, *ranks, target.owner)


def _becomes_filters(source: Slot, target: Slot) -> bool:
    """Tell whether a matrix on one side is filters of more than one pixel on the other."""
    matrix, filters = sorted((source.shapes[0], target.shapes[0]), key=len)
    return len(matrix) == 2 and len(filters) > 3 and max(filters[2:]) > 1


def _is_path_within(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return "." in short and long.endswith(f".{short}")
