"""What speaks for a pair of places: their names and numbers, their order, their shapes, and the company they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ckptfix.inference.assignment import Pair
from ckptfix.inference.leaders import find_leaders, find_parents
from ckptfix.inference.link import Evidence
from ckptfix.inference.lists import find_moved
from ckptfix.inference.names import conflict, similarity, tail
from ckptfix.inference.order import find_shifted, is_lockstep, may_follow, rank_series
from ckptfix.inference.slots import Slot, is_sorted, tell_roles, word_weights

_ONE_NAMING = 0.8
"""Of the places of one side, what the other has by the same name, for names to mean the same on both."""


class Allowed(Struct, frozen=True):
    """What may be used as evidence. That shapes must fit is no evidence but a condition, and always holds."""

    names: bool = True
    shapes: bool = True
    order: bool = True


class Scoring:
    """The places of both sides, and what is known of them together."""

    def __init__(
        self,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        allowed: Allowed,
        *,
        inside: bool,
        unique: frozenset[str],
        repeated: frozenset[str],
        scopes: frozenset[tuple[str, str]],
        in_order: bool,
    ) -> None:
        """Read the places. `in_order` says whether the order of definition may speak where all fits place by place."""
        self.allowed = allowed
        self.inside = inside
        self.unique = unique
        self.repeated = repeated
        self.scopes = scopes
        self.in_order = in_order
        self.source_roles = tell_roles(sources) if allowed.names else {}
        self.target_roles = tell_roles(targets)
        self.moved = list(find_moved(sources, targets)) if allowed.order else []
        self.shifted = find_shifted(sources, targets, {moved.prefix for moved in self.moved})
        self.source_places = {slot.place for slot in sources}
        self.target_places = {slot.place for slot in targets}
        same = self.source_places & self.target_places
        fewer = min(len(self.source_places), len(self.target_places))
        self.one_naming = not inside and len(same) >= _ONE_NAMING * fewer
        self.weights = word_weights([*sources, *targets])
        ordered = allowed.order and not is_sorted(sources)
        self.source_leaders = find_leaders(sources, ordered=ordered)
        self.target_leaders = find_leaders(targets, ordered=True)
        self.apart = 1.5 if ordered else 0.5  # what it costs to go elsewhere than one's leader

    def roles(self, source: Slot, target: Slot) -> tuple[str, str]:
        """Give the parts that two places play, empty where nothing tells."""
        return self.source_roles.get(source.place, ""), self.target_roles.get(target.place, "")

    def score(self, source: Slot, target: Slot, layout: str | None) -> float:
        """Weigh what speaks for a pair: alike names, equal roles; moved numbers cost a little."""
        score = 0.0 if layout is None else -0.2
        if _becomes_filters(source, target):
            score -= 1.0  # a matrix is seldom one of filters: more than its size must speak for that
        if (source.place in self.repeated) != (target.place in self.repeated):
            score -= 1.5  # what repeats does not become what stands alone, nor the other way
        if not self.allowed.names:
            return score
        score += 2.0 * similarity(source.name.words, target.name.words, self.weights)
        one, other = self.roles(source, target)
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

    def with_order(
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
                if may_follow(source, target, set(self.roles(source, target))):
                    ranked[i, i] += 0.8
        return ranked

    def with_company(
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

    def support(self, source: Slot, target: Slot, *, alone: bool) -> float:
        """Let a shape speak for a pair that nothing else could be, where it is more than a vector."""
        if not self.allowed.shapes or _becomes_filters(source, target):
            return 0.0
        if source.place in self.unique and target.place in self.unique:
            many = len(target.shapes[0]) > 2
            return 1.5 if many else 0.0 if conflict(source.name, target.name) else 1.0
        if not alone or conflict(source.name, target.name):
            return 0.0
        return 1.0 if self.inside else 0.2

    def evidence(self, source: Slot, target: Slot, layout: str | None, score: float) -> set[Evidence]:
        """Say what the score of a pair rests on: its names, or its place among others."""
        named = self.score(source, target, layout)
        evidence: set[Evidence] = {"shapes"}
        if named > 0.4:
            evidence.add("names")
        if score > named + 0.4:
            evidence.add("order")
        return evidence


def _is_path_within(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return "." in short and long.endswith(f".{short}")


def _becomes_filters(source: Slot, target: Slot) -> bool:
    """Tell whether a matrix on one side is filters of more than one pixel on the other."""
    matrix, filters = sorted((source.shapes[0], target.shapes[0]), key=len)
    return len(matrix) == 2 and len(filters) > 3 and max(filters[2:]) > 1
