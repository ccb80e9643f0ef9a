"""Match the places of one kind of block with those of another: by shape, by name, by role, by what is beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckptfix.inference.assignment import LEAST_MARGIN, Board, assign
from ckptfix.inference.fusion import fuse
from ckptfix.inference.link import Evidence
from ckptfix.inference.names import conflict, kinds_agree, similarity
from ckptfix.inference.shapes import relate, relate_stacked
from ckptfix.inference.slots import Slot, find_leaders, find_parents, is_sorted, stack_slots, tell_roles, word_weights

Resize = Callable[[Slot, Slot], "Mapping[str, object] | None"]
"""Gives the fields of the resize that leads from one slot to another, None where there is none."""

_LEAST_SUPPORT = 0.5
_INTERLEAVED = "heads may lie one after the other, q, k and v of each together"


@dataclass(frozen=True)
class Allowed:
    """What may be used as evidence. That shapes must fit is no evidence but a condition, and always holds."""

    names: bool = True
    shapes: bool = True
    order: bool = True
    classes: bool = True


@dataclass
class Match:
    """Source slots that make target slots, in every block of the kind. `rivals` are places that fit as well."""

    sources: tuple[Slot, ...]
    targets: tuple[Slot, ...]
    layout: str | None
    support: float
    margin: float
    evidence: set[Evidence] = field(default_factory=set)
    rivals: tuple[Slot, ...] = ()
    why: str = ""
    options: tuple[str | None, ...] = (None,)
    inside: bool = True

    @property
    def is_certain(self) -> bool:
        """Whether nothing else fits nearly as well, and something speaks for it."""
        return self.margin >= LEAST_MARGIN and self.support >= _LEAST_SUPPORT


class Matching:
    """The slots of both sides, what may become what, and what speaks for it."""

    def __init__(
        self,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        allowed: Allowed,
        *,
        inside: bool,
        conventions: Mapping[tuple[object, ...], str | None] | None = None,
        unique: frozenset[str] = frozenset(),
        repeated: frozenset[str] = frozenset(),
        scopes: frozenset[tuple[str, str]] = frozenset(),
        resize: Resize | None = None,
    ) -> None:
        self.allowed = allowed
        self.inside = inside
        self.settled = conventions is not None
        self.conventions = conventions or {}
        self.unique = unique
        self.repeated = repeated
        self.scopes = scopes
        self.resize = resize
        self.sources = stack_slots(sources, targets)
        self.targets = stack_slots(targets, sources)
        self.source_roles = tell_roles(self.sources) if allowed.names else {}
        self.target_roles = tell_roles(self.targets)
        self.source_places = {slot.place for slot in self.sources}
        self.target_places = {slot.place for slot in self.targets}
        self.weights = word_weights([*self.sources, *self.targets])
        self.source_leaders = find_leaders(self.sources, ordered=allowed.order and not is_sorted(self.sources))
        self.target_leaders = find_leaders(self.targets, ordered=True)

    def solve(self) -> list[Match]:
        """Give all matches, certain or not."""
        composed = [] if self.resize else list(self._composed())
        taken_sources = {slot.place for match in composed for slot in match.sources}
        taken_targets = {slot.place for match in composed for slot in match.targets}
        sources = [slot for slot in self.sources if slot.place not in taken_sources]
        targets = [slot for slot in self.targets if slot.place not in taken_targets]
        return [*composed, *self._single(sources, targets, composed)]

    # --- several tensors to one, one to several -------------------------------------------------------------------

    def _composed(self) -> Iterator[Match]:
        """Fuse or split queries, keys and values, gates and ways up, where shapes add up."""
        used: set[str] = set()
        for parts, whole in ((("q", "k", "v"), "qkv"), (("k", "v"), "kv"), (("gate", "up"), "gate_up")):
            for split in (False, True):
                sides = (self.sources, self.source_roles), (self.targets, self.target_roles)
                (many, many_roles), (few, few_roles) = reversed(sides) if split else sides
                many = [slot for slot in many if slot.place not in used]
                for match in self._join(many, few, many_roles, few_roles, parts, whole, split=split):
                    used |= {slot.place for slot in (match.targets if split else match.sources)}
                    yield match

    def _join(
        self,
        many: Sequence[Slot],
        few: Sequence[Slot],
        many_roles: Mapping[str, str],
        few_roles: Mapping[str, str],
        parts: tuple[str, ...],
        whole: str,
        *,
        split: bool,
    ) -> Iterator[Match]:
        votes = {layout for kind, layout in self.conventions.items() if kind[:3] == (self.inside, 2, 2)}
        turned = votes.pop() is not None if len(votes) == 1 else None
        groups: dict[tuple[str, ...], dict[str, Slot]] = {}
        for slot in many:
            role = many_roles.get(slot.place, "").removeprefix("cross ")
            if role in parts:
                groups.setdefault(slot.stem, {}).setdefault(role, slot)
        for stem, members in groups.items():
            if set(members) != set(parts):
                continue
            ordered = tuple(members[part] for part in parts)
            fits = [
                (slot, layout) for slot in few if (layout := fuse(ordered, slot, parts, split=split, turned=turned))
            ]
            named = [
                (slot, layout) for slot, layout in fits if few_roles.get(slot.place, "").removeprefix("cross ") == whole
            ]
            if len(named) > 1:
                named.sort(key=lambda pair: -similarity(stem, pair[0].stem, self.weights))
                best, second = (similarity(stem, slot.stem, self.weights) for slot, _ in named[:2])
                named = named[:1] if best > second + 0.05 else []
            unnamed = [(slot, layout) for slot, layout in fits if not self._has_twin(slot, many)]
            chosen = named or (unnamed if len(unnamed) == 1 and len(parts) > 2 else [])
            if not chosen or any(self._fits_alone(slot, few) for slot in ordered):
                continue
            slot, layout = chosen[0]
            interleaved = "querykeyvalue" in slot.name.words
            sources, targets = ((slot,), ordered) if split else (ordered, (slot,))
            yield Match(
                sources,
                targets,
                layout,
                support=2.0 if named else 1.0,
                margin=0.0 if interleaved else 2.0,
                evidence={"names", "shapes"},
                why=_INTERLEAVED if interleaved else "",
            )

    def _has_twin(self, slot: Slot, others: Sequence[Slot]) -> bool:
        """Tell whether the other side has a tensor that may be this one as it is."""
        return any(other.name.kind == slot.name.kind and other.shapes == slot.shapes for other in others)

    def _fits_alone(self, slot: Slot, others: Sequence[Slot]) -> bool:
        """Tell whether the other side has the same place by itself: then it is neither split nor fused."""
        roles = self.source_roles | self.target_roles
        return any(
            roles.get(other.place) == roles.get(slot.place)
            and other.name.kind == slot.name.kind
            and other.shapes == slot.shapes
            and similarity(slot.stem, other.stem, self.weights) > 0.5
            for other in others
        )

    # --- one to one -----------------------------------------------------------------------------------------------

    def _single(self, sources: Sequence[Slot], targets: Sequence[Slot], known: Sequence[Match]) -> list[Match]:
        """Assign, take what is certain, let it vouch for its company, and assign again until nothing changes."""
        layouts = {
            (i, j): options
            for i, source in enumerate(sources)
            for j, target in enumerate(targets)
            if (options := self._layouts(source, target))
        }
        base = {(i, j): self._score(sources[i], targets[j], options[0]) for (i, j), options in layouts.items()}
        base = self._with_order(sources, targets, base)
        certain: set[tuple[int, int]] = set()
        anchors = [
            (source, target)
            for match in known
            if match.is_certain
            for source in match.sources
            for target in match.targets
        ]
        for _ in range(5):
            vouched = anchors + [(sources[i], targets[j]) for i, j in certain]
            scores = self._with_company(sources, targets, base, vouched)
            pairs = assign({pair: score for pair, score in scores.items() if score > -2})
            board = Board(scores, pairs)
            found = [self._judge(i, j, sources, targets, board, layouts) for j, i in pairs.items()]
            now = {(i, j) for (j, i), match in zip(pairs.items(), found, strict=True) if match.is_certain}
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
        layouts: Mapping[tuple[int, int], list[str | None]],
    ) -> Match:
        margin, rivals = board.margin(i, j)
        score = board.scores[i, j]
        undecided = len(layouts[i, j]) > 1 and self.settled
        interleaved = sum("querykeyvalue" in slot.name.words for slot in (sources[i], targets[j])) == 1
        shape = self._shape_support(sources[i], targets[j], alone=board.is_alone(i, j))
        return Match(
            (sources[i],),
            (targets[j],),
            layouts[i, j][0],
            score + shape,
            0.0 if undecided or interleaved else margin,
            self._evidence(sources[i], targets[j], layouts[i, j][0], score),
            tuple(sources[rival] for rival in rivals),
            _INTERLEAVED if interleaved else "may be transposed, as others of this file are" if undecided else "",
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
        if self.resize is not None:
            return [None] if self.resize(source, target) is not None else []
        if (source.terms[0].axis is None) == (target.terms[0].axis is None):
            possible = [relate(have, want) for have, want in zip(source.shapes, target.shapes, strict=True)]
        else:
            possible = [relate_stacked(have, want) for have, want in zip(source.shapes, target.shapes, strict=True)]
        shared = [layout for layout in possible[0] if all(layout in others for others in possible)]
        kind = (self.inside, *convention(source, target))
        if kind in self.conventions:
            return [layout for layout in shared if layout == self.conventions[kind]] or shared
        foreign = source.place.endswith("kernel") and not target.place.endswith("kernel")
        if len(shared) > 1 and shared[0] is None and not any(self.conventions.values()) and not foreign:
            return shared[:1]  # nothing in this file is transposed
        return shared

    def _score(self, source: Slot, target: Slot, layout: str | None) -> float:
        """Weigh what speaks for a pair: alike names, equal roles; moved numbers cost a little."""
        score = 0.0 if layout is None else -0.2
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
        if source.place == target.place:
            score += 1.5
        elif not self.inside and (source.place in self.target_places or target.place in self.source_places):
            score -= 2.0  # the other side has a place of that very name
        elif source.name.numbers and source.name.numbers == target.name.numbers:
            score += 0.2
        if source.name.kind == target.name.kind and source.name.kind:
            score += 0.2
        return score + self._scope(source, target) - conflict(source.name, target.name)

    def _scope(self, source: Slot, target: Slot) -> float:
        """Let places count that lie where blocks are that correspond."""
        if not self.scopes or source.label == target.label == "":
            return 0.0
        one, other = (
            source.place[: len(source.place) - len(source.label)],
            target.place[: len(target.place) - len(target.label)],
        )
        if (one, other) in self.scopes:
            return 0.8
        return (
            -1.0
            if any(one == scope for scope, _ in self.scopes) and any(other == scope for _, scope in self.scopes)
            else 0.0
        )

    def _with_order(
        self, sources: Sequence[Slot], targets: Sequence[Slot], scores: Mapping[tuple[int, int], float]
    ) -> dict[tuple[int, int], float]:
        """Let numbers count: of places that differ by numbers alone, the first is the first."""
        ranked: dict[tuple[int, int], float] = dict(scores)
        if not self.allowed.order:
            return ranked
        series, others = _series(sources), _series(targets)
        for members in series:
            for alike in others:
                if len(alike) == len(members) and all(pair in scores for pair in zip(members, alike, strict=True)):
                    for rank, i in enumerate(members):
                        for place, j in enumerate(alike):
                            if (i, j) in scores:
                                ranked[i, j] = scores[i, j] + (1.0 if rank == place else -1.0)
        return ranked

    def _with_company(
        self,
        sources: Sequence[Slot],
        targets: Sequence[Slot],
        scores: Mapping[tuple[int, int], float],
        vouched: Sequence[tuple[Slot, Slot]],
    ) -> dict[tuple[int, int], float]:
        """Let certain neighbours vouch: the parameters of one module go to one module, a norm goes with its leader."""
        company: dict[tuple[str, str], set[tuple[str, str]]] = {}
        leaders: dict[str, set[str]] = {}
        for source, target in vouched:
            leaders.setdefault(source.place, set()).add(target.place)
            for one, other in zip(find_parents(source), find_parents(target), strict=False):
                company.setdefault((one, other), set()).add((source.place, target.place))
        joined: dict[tuple[int, int], float] = {}
        for (i, j), score in scores.items():
            own = {(sources[i].place, targets[j].place)}
            bonus = 0.0
            for depth, pair in enumerate(zip(find_parents(sources[i]), find_parents(targets[j]), strict=False)):
                votes = len(company.get(pair, own) - own)
                bonus += min(votes, 2) * (0.8 if depth == 0 else 0.15)
            led = self.source_leaders.get(sources[i].place), self.target_leaders.get(targets[j].place)
            if led[0] is not None and led[1] is not None and led[0] in leaders:
                bonus += 1.0 if led[1] in leaders[led[0]] else -0.5
            joined[i, j] = score + bonus
        return joined

    def _shape_support(self, source: Slot, target: Slot, *, alone: bool) -> float:
        """Let a shape speak for a pair that nothing else could be, where it is more than a vector."""
        if self.resize is not None or not self.allowed.shapes:
            return 0.0
        if source.place in self.unique and target.place in self.unique:
            many = len(target.shapes[0]) > 2
            return 1.5 if many else 0.0 if conflict(source.name, target.name) else 1.0
        if not alone or conflict(source.name, target.name):
            return 0.0
        return 1.0 if self.inside else 0.2


def convention(source: Slot, target: Slot) -> tuple[object, ...]:
    """Give what a layout is a convention of: the ranks of both, and what module it is for."""
    return len(source.shapes[0]), len(target.shapes[0]), target.owner


def _series(slots: Sequence[Slot]) -> list[list[int]]:
    """Group places that differ by numbers alone, in the order of the numbers."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, slot in enumerate(slots):
        if slot.name.numbers:
            groups.setdefault((slot.name.words, slot.name.kind, len(slot.shapes[0])), []).append(i)
    return [
        sorted(group, key=lambda i: slots[i].name.numbers)
        for group in groups.values()
        if len({slots[i].name.numbers for i in group}) == len(group) > 1  # `h_to_4h` and `4h_to_h` are no series
    ]
