"""Match the places of one kind of block with those of another: by shape, by name, by role, by what is beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ckptfix.inference.assignment import Board, Pair, assign
from ckptfix.inference.candidate import TURNED_OR_NOT, Match, reserve
from ckptfix.inference.fusion import Fusing
from ckptfix.inference.names import kinds_agree
from ckptfix.inference.scoring import Allowed, Scoring
from ckptfix.inference.shapes import is_turned, relate, relate_stacked
from ckptfix.inference.slots import Slot, stack_slots

Convention = tuple[bool, int, int, str]
"""What a layout is a convention of: whether it is of blocks, the ranks of both sides, and the module that it is for.

What is called a kernel is laid out alike in the whole file, whatever it is for.
"""
Conventions = Mapping[Convention, str | None]


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
        self.scopes = scopes
        self.may_resize = may_resize
        self.sources = stack_slots(sources, targets)
        self.targets = stack_slots(targets, sources)
        self.turned = self._find_turned()
        self.turns = any(map(is_turned, self.conventions.values()))
        self.scoring = Scoring(
            self.sources,
            self.targets,
            allowed,
            inside=inside,
            unique=unique,
            repeated=repeated,
            scopes=scopes,
            in_order=in_order and may_resize is None,
        )

    def solve(self) -> list[Match]:
        """Give all matches, certain or not."""
        composed = [] if self.may_resize else list(self._fusing().matches())
        taken_sources = {slot.place for match in composed for slot in match.sources}
        taken_targets = {slot.place for match in composed for slot in match.targets}
        sources = [slot for slot in self.sources if slot.place not in taken_sources]
        targets = [slot for slot in self.targets if slot.place not in taken_targets]
        return [*composed, *self._single(sources, targets, composed)]

    def _fusing(self) -> Fusing:
        return Fusing(
            self.sources,
            self.targets,
            self.scoring.source_roles,
            self.scoring.target_roles,
            self.scoring.weights,
            self.turned,
        )

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
        base = {(i, j): self.scoring.score(sources[i], targets[j], options[0]) for (i, j), options in layouts.items()}
        base = self.scoring.with_order(sources, targets, base, layouts)
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
            scores = self.scoring.with_company(sources, targets, base, vouched)
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
        roles = self.scoring.roles(sources[i], targets[j])
        why = TURNED_OR_NOT if len(layouts[i, j]) > 1 and self.settled else reserve(sources[i], targets[j], roles)
        alone = board.is_alone(i, j)
        shape = 0.0 if self.may_resize else self.scoring.support(sources[i], targets[j], alone=alone)
        return Match(
            (sources[i],),
            (targets[j],),
            layouts[i, j][0],
            score + shape,
            margin,
            self.scoring.evidence(sources[i], targets[j], layouts[i, j][0], score),
            tuple(sources[rival] for rival in rivals),
            why,
            tuple(layouts[i, j]),
            self.inside,
        )

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


def convention(source: Slot, target: Slot, *, inside: bool) -> Convention:
    """Give what the layout of a pair is a convention of."""
    ranks = len(source.shapes[0]), len(target.shapes[0])
    return (False, *ranks, "kernel") if source.place.endswith("kernel") else (inside, *ranks, target.owner)
