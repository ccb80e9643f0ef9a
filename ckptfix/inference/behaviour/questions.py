"""What is ambiguous, as questions: one for each role in the repeated blocks, with the answers that are possible."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from ckptfix.inference.link import Link
from ckptfix.inference.names import read_name
from ckptfix.inference.settle import Ambiguity
from ckptfix.inference.slots import find_role
from ckptfix.tensors import Manifest

_NUMBER = re.compile(r"([0-9]+)")

Links = tuple[Link, ...]
Sides = tuple[tuple[str, ...], tuple[str, ...]]
"""Source keys and the target keys that they are candidates for."""


class Doubt(Struct, frozen=True, dict=True):
    """Target keys of one block that are decided together, each with its candidates."""

    candidates: Mapping[str, tuple[str, ...]]

    @property
    def targets(self) -> tuple[str, ...]:
        """The target keys."""
        return tuple(self.candidates)

    @property
    def sources(self) -> tuple[str, ...]:
        """All candidates, each once."""
        return tuple(dict.fromkeys(key for keys in self.candidates.values() for key in keys))

    @cached_property
    def sides(self) -> list[Sides]:
        """The target keys that have the same candidates, together."""
        joined: dict[tuple[str, ...], list[str]] = {}
        for target, keys in self.candidates.items():
            joined.setdefault(keys, []).append(target)
        return [(keys, tuple(targets)) for keys, targets in joined.items()]

    @cached_property
    def _is_of_modules(self) -> bool:
        """Whether what is alike lies in modules apart, so that a module goes with all of its tensors."""
        return all(len(set(map(module_of, keys))) == len(keys) for pair in self.sides for keys in pair)

    def holder(self, key: str) -> str:
        """Give what a key goes with: its module, or itself where several that are alike lie in one module."""
        return module_of(key) if self._is_of_modules else key

    def holders(self) -> tuple[list[str], list[str]]:
        """List the holders of both sides, in the order of their names and numbers."""
        sources, targets = ({self.holder(key) for key in keys} for keys in (self.sources, self.targets))
        return sorted(sources, key=_by_numbers), sorted(targets, key=_by_numbers)

    @property
    def is_of_heads(self) -> bool:
        """Whether it is of queries and keys that have one source each, whose rows may be in another order."""
        roles = {find_role(read_name(key)) for key in self.targets}
        return roles <= {"q", "k"} and all(len(keys) == 1 for pair in self.sides for keys in pair)


class Question(Struct, frozen=True):
    """The same doubt in every block, and its options: the links that each would make, in all blocks."""

    targets: tuple[str, ...]
    options: tuple[Links, ...]


Options = Callable[[Sequence[Doubt], Manifest, Manifest], Sequence[Links]]


def ask(ambiguous: Iterable[Ambiguity], have: Manifest, want: Manifest, options: Options) -> list[Question]:
    """Put what belongs together into one question: what shares candidates, one module's tensors, and all blocks."""
    groups: dict[object, list[Doubt]] = {}
    for doubt in _by_module(_by_candidates(ambiguous)):
        groups.setdefault(_kind(doubt, have, want), []).append(doubt)
    return [
        Question(tuple(key for doubt in doubts for key in doubt.targets), tuple(options(doubts, have, want)))
        for doubts in groups.values()
    ]


def module_of(key: str) -> str:
    """Give the path of the module that holds a key."""
    return key.rpartition(".")[0]


def _by_numbers(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _NUMBER.split(text)]


def _by_candidates(ambiguous: Iterable[Ambiguity]) -> list[Doubt]:
    """Join keys that have a candidate in common."""
    joined: list[tuple[set[str], dict[str, tuple[str, ...]]]] = []
    for item in ambiguous:
        sources, members = set(item.candidates), {item.target: tuple(sorted(item.candidates))}
        for other in [group for group in joined if group[0] & sources]:
            joined.remove(other)
            sources |= other[0]
            members = other[1] | members
        joined.append((sources, members))
    return [Doubt(members) for _, members in joined]


def _by_module(doubts: Iterable[Doubt]) -> list[Doubt]:
    """Join the weights and the biases of the same modules, and queries with keys, whose heads are of one size."""
    joined: dict[object, dict[str, tuple[str, ...]]] = {}
    for doubt in doubts:
        holders = doubt.holders()
        place: object = (frozenset(holders[0]), frozenset(holders[1]))
        if doubt.is_of_heads:
            place = module_of(holders[0][0]), module_of(holders[1][0])
        joined.setdefault(place, {}).update(doubt.candidates)
    return [Doubt(members) for members in joined.values()]


def _kind(doubt: Doubt, have: Manifest, want: Manifest) -> object:
    """Describe a doubt as it is in every block: names without numbers, and shapes."""
    sides = ((doubt.sources, have), (doubt.targets, want))
    return tuple(
        tuple((_NUMBER.sub("#", key), manifest[key].shape) for key in sorted(keys, key=_by_numbers))
        for keys, manifest in sides
    )
