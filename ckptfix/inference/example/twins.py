"""Tell tensors of equal values apart by their names and places, once the values of all others have been told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

_INDEX = re.compile(r"(?<![^.])[0-9]+(?![^.])")
"""A number that is a whole segment: `norm1` and `norm2` are two kinds of modules, `blocks.1` and `blocks.2` one."""
_WORD = re.compile(r"[a-z]+|[0-9]+")

_SURE = 0.95
_GUESS = 0.5
_MARGIN = 0.5

Feature = tuple[object, ...]


class Choice(NamedTuple):
    """A source key that is taken for a target key, with the probability that this is right."""

    source: str
    target: str
    confidence: float


class Names(Struct, frozen=True):
    """What pairs that are sure say of the names of other tensors. `votes` counts the pairs that have a feature."""

    votes: Counter[Feature]
    places: dict[str, float]
    """The source keys, then the target keys after a `>`, by their place in the order of their side, from 0 to 1."""

    @classmethod
    def learn(cls, pairs: Iterable[tuple[str, str]], sources: Sequence[str], targets: Sequence[str]) -> Names:
        """Count the features of sure pairs."""
        votes = Counter(feature for pair in pairs for _, feature in _features(*pair))
        places = {key: number / max(len(sources), 1) for number, key in enumerate(sources)}
        places |= {f">{key}": number / max(len(targets), 1) for number, key in enumerate(targets)}
        return cls(votes, places)

    def score(self, source: str, target: str) -> float:
        """Say how well two names go together: modules that go together first, words and places after that."""
        known = sum(weight for weight, feature in _features(source, target) if self.votes[feature])
        left, right = (set(_WORD.findall(key.lower())) for key in (source, target))
        alike = len(left & right) / max(len(left | right), 1)
        return known + 2 * alike - abs(self.places[source] - self.places[f">{target}"])

    def choose(self, sources: Sequence[str], targets: Sequence[str]) -> Iterator[Choice]:
        """Pair keys, the best pair first, and learn from each pair; the next best one tells how sure a choice is."""
        scores = np.array([[self.score(source, target) for target in targets] for source in sources])
        news: dict[Feature, list[tuple[int, int]]] = {}
        for row, source in enumerate(sources):
            for column, target in enumerate(targets):
                for _, feature in _features(source, target):
                    if not self.votes[feature]:
                        news.setdefault(feature, []).append((row, column))
        for _ in range(min(scores.shape)):
            row, column = map(int, np.unravel_index(scores.argmax(), scores.shape))
            best = float(scores[row, column])
            rivals = np.concatenate([np.delete(scores[row], column), np.delete(scores[:, column], row)])
            sure = best - float(rivals.max(initial=-np.inf)) > _MARGIN
            yield Choice(sources[row], targets[column], _SURE if sure else _GUESS)
            scores[row, :] = scores[:, column] = -np.inf
            for weight, feature in _features(sources[row], targets[column]):
                for place in news.pop(feature, ()):
                    scores[place] += weight


def _features(source: str, target: str) -> Iterator[tuple[float, Feature]]:
    """Give what a pair of keys shows, with its weight: that modules, kinds of modules, and parameters go together."""
    module, _, leaf = source.rpartition(".")
    other_module, _, other_leaf = target.rpartition(".")
    numbers, others = _indices(module), _indices(other_module)
    shift = tuple(a - b for a, b in zip(numbers, others, strict=True)) if len(numbers) == len(others) else None
    yield 8.0, ("modules", module, other_module)
    yield 6.0, ("kinds", _INDEX.sub("#", module), _INDEX.sub("#", other_module), shift)
    yield 4.0, ("above", module.rpartition(".")[0], other_module.rpartition(".")[0])
    yield 2.0, ("parameters", leaf, other_leaf)
    yield 1.0, ("indices", shift)


def _indices(module: str) -> list[int]:
    return [int(segment) for segment in module.split(".") if segment.isdecimal()]
