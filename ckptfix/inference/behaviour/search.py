"""Search the options for those with which the target does what the source does, and prove each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

import torch
from msgspec import Struct, field
from msgspec.structs import replace
from torch import Tensor

from ckptfix.inference.behaviour.observe import Reading, Spent, Twins
from ckptfix.inference.behaviour.questions import Links, Question, module_of
from ckptfix.inference.link import Evidence, Link
from ckptfix.inference.names import read_name

_WIDE = 100.0
"""How many times further apart the outputs must lie with any other option than with the one that is accepted."""
_NOISE = torch.finfo(torch.float32).eps
_NO_NOTICE = "the outputs take no notice of it"
_NUMBER = re.compile(r"[0-9]+")
_BEHAVIOUR: frozenset[Evidence] = frozenset({"behaviour"})

Choice = tuple[int, ...]
MakeTensors = Callable[[Links], Mapping[str, Tensor]]


class Verdict(Struct):
    """Links that behaviour decides, and why the other questions stay open, by target key."""

    links: list[Link] = field(default_factory=list)
    open: dict[str, str] = field(default_factory=dict)


class Search:
    """The options of all questions, loaded into the target one choice after the other. Each choice is run once."""

    def __init__(self, twins: Twins, questions: Sequence[Question], make_tensors: MakeTensors) -> None:
        self._twins = twins
        self._make_tensors = make_tensors
        initial: Links = ()
        # What is left of a single option is to be told from what the target holds anyway.
        self._options = [
            (*question.options, initial) if len(question.options) == 1 else question.options for question in questions
        ]
        self._initial = [{key: twins.values(key) for key in question.targets} for question in questions]
        self._questions = questions
        self._loaded: list[int | None] = [None] * len(questions)
        self._readings: dict[Choice, Reading] = {}

    def read(self, choice: Choice) -> Reading:
        """Run the target with one option for each question. Raises Spent and NotRun."""
        if choice not in self._readings:
            self._load(choice)
            self._readings[choice] = self._twins.read()
        return self._readings[choice]

    def _load(self, choice: Choice) -> None:
        for number, option in enumerate(choice):
            if self._loaded[number] != option:
                links = self._options[number][option]
                self._twins.load(self._make_tensors(links) if links else self._initial[number])
                self._loaded[number] = option

    def climb(self) -> Choice:
        """Change one answer at a time, or two where one alone shows nothing, as long as more modules agree.

        The first module that still diverges is what the next answer has to mend, so that few need be tried together.
        """
        choice: Choice = (0,) * len(self._questions)
        try:
            while not self.read(choice).is_equal and (better := self._improve(choice)):
                choice = better
        except Spent:
            pass
        return choice

    def _improve(self, choice: Choice) -> Choice | None:
        for count in (1, 2):
            for numbers in combinations(range(len(choice)), count):
                best = max(self._others(choice, numbers), key=lambda other: self.read(other).worth, default=choice)
                if self.read(best).worth > self.read(choice).worth:
                    return best
        return None

    def _others(self, choice: Choice, numbers: Sequence[int]) -> Iterator[Choice]:
        """Give the choices with other answers to some questions."""
        for options in product(*(range(len(self._options[number])) for number in numbers)):
            changed = dict(zip(numbers, options, strict=True))
            if all(choice[number] != option for number, option in changed.items()):
                yield tuple(changed.get(number, option) for number, option in enumerate(choice))

    def judge(self, choice: Choice) -> Verdict:
        """Accept the links of a choice without which the outputs differ, each question by itself."""
        verdict = Verdict()
        for number, question in enumerate(self._questions):
            try:
                decided, why, why_not = self._compare(choice, number)
                unheard = self._unheard(choice, decided)
            except Spent:
                verdict.open |= dict.fromkeys(question.targets, "the forward passes were used up before it was decided")
                continue
            verdict.open |= dict.fromkeys(question.targets, why_not)
            verdict.open |= {key: _NO_NOTICE for link in unheard for key in link.target_keys}
            verdict.links += [
                replace(link, confidence=0.99, why=why, evidence=_BEHAVIOUR) for link in decided if link not in unheard
            ]
        return verdict

    def _compare(self, choice: Choice, number: int) -> tuple[list[Link], str, str]:
        """Give the links of all options with which the outputs are the same; why them, and why no others."""
        gap, options = self.read(choice).gap, self._options[number]
        gaps = {other[number]: self.read(other).gap for other in self._others(choice, [number])}
        apart = {option: found for option, found in gaps.items() if found >= self._least_gap(gap)}
        same = [options[option] for option in gaps.keys() - apart.keys()]
        decided = [link for link in options[choice[number]] if apart and all(link in links for links in same)]
        least = min(apart.values(), default=0.0)
        return (
            decided,
            f"outputs differ by {gap:.1e}, otherwise by {least:.1e} or more",
            f"the outputs are the same with {len(same) + 1} of {len(options)} possibilities",
        )

    def _least_gap(self, gap: float) -> float:
        return _WIDE * max(gap, _NOISE)

    def _unheard(self, choice: Choice, links: Sequence[Link]) -> list[Link]:
        """List the links of tensors that may be anything without a change in the outputs, as a key's bias may.

        The bias of a module goes with its weight.
        """
        places: dict[tuple[str, ...], list[Link]] = {}
        for link in links:
            places.setdefault(tuple(_NUMBER.sub("#", key) for key in link.target_keys), []).append(link)
        heard = [link for alike in places.values() if self._is_heard(choice, alike) for link in alike]
        weights = {_modules(link) for link in heard if _kind(link) == "weight"}
        return [
            link for link in links if link not in heard and (_kind(link) == "weight" or _modules(link) not in weights)
        ]

    def _is_heard(self, choice: Choice, links: Sequence[Link]) -> bool:
        """Tell whether the outputs change where random numbers take the place of what the links make."""
        self._load(choice)
        keys = [key for link in links for key in link.target_keys]
        kept = {key: self._twins.values(key) for key in keys}
        generator = torch.Generator().manual_seed(0)
        self._twins.load({key: 0.5 + torch.rand(value.shape, generator=generator) for key, value in kept.items()})
        try:
            return self._twins.read().gap >= self._least_gap(self.read(choice).gap)
        finally:
            self._twins.load(kept)


def _kind(link: Link) -> str:
    return read_name(link.target_keys[0]).kind


def _modules(link: Link) -> tuple[str, ...]:
    return tuple(map(module_of, (*link.source_keys, *link.target_keys)))
