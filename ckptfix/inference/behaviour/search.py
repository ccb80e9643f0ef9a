"""Search the options for those with which the target does what the source does, and prove each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product

import torch
from torch import Tensor

from ckptfix.inference.behaviour.observe import Reading, Spent, Twins
from ckptfix.inference.behaviour.questions import Links, Question
from ckptfix.inference.link import Evidence, Link

_WIDE = 100.0
"""How many times further apart the outputs must lie with any other option than with the one that is accepted."""
_NOISE = torch.finfo(torch.float32).eps
_BEHAVIOUR: frozenset[Evidence] = frozenset({"behaviour"})

Choice = tuple[int, ...]
MakeTensors = Callable[[Links], Mapping[str, Tensor]]


@dataclass
class Verdict:
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
            for number, option in enumerate(choice):
                if self._loaded[number] != option:
                    links = self._options[number][option]
                    self._twins.load(self._make_tensors(links) if links else self._initial[number])
                    self._loaded[number] = option
            self._readings[choice] = self._twins.read()
        return self._readings[choice]

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
        gap = self.read(choice).gap
        for number, question in enumerate(self._questions):
            chosen = self._options[number][choice[number]]
            alike, least = [chosen], float("inf")
            try:
                for other in self._others(choice, [number]):
                    found = self.read(other).gap
                    if found < _WIDE * max(gap, _NOISE):
                        alike.append(self._options[number][other[number]])
                    else:
                        least = min(least, found)
            except Spent:
                verdict.open |= dict.fromkeys(question.targets, "the forward passes were used up before it was decided")
                continue
            why = f"outputs differ by {gap:.1e}, otherwise by {least:.1e} or more"
            decided = [link for link in chosen if all(link in links for links in alike)]
            verdict.links += [replace(link, confidence=0.99, why=why, evidence=_BEHAVIOUR) for link in decided]
            made = {key for link in decided for key in link.target_keys}
            same = f"the outputs are the same with {len(alike)} of {len(self._options[number])} possibilities"
            verdict.open |= {key: same for key in question.targets if key not in made}
        return verdict
