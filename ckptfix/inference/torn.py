"""Blocks that links tear apart: most of a block goes to one place, and a part of it to a block of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ckptfix.inference.link import Link
from ckptfix.inference.reading import blocks_of, template
from ckptfix.tensors import Manifest

Votes = Mapping[tuple[str, str], Counter[str]]
"""By a block and a template of the other side: how many elements go to which block of that template."""


class Torn:
    """Which blocks belong together, by the elements that go from one to the other."""

    def __init__(self, links: Iterable[Link], have: Manifest) -> None:
        """Take the links that are taken for certain; those of one tensor to one count."""
        self._have = have
        self._votes: tuple[dict[tuple[str, str], Counter[str]], ...] = {}, {}
        for link in links:
            if link.pair is not None:
                numel = have[link.pair[0]].numel
                for source in blocks_of(link.pair[0]):
                    for target in blocks_of(link.pair[1]):
                        self._votes[0].setdefault((source, template(target)), Counter())[target] += numel
                        self._votes[1].setdefault((target, template(source)), Counter())[source] += numel

    def find_other(self, link: Link) -> str | None:
        """Give the tensor that would come instead, were the block not torn; None where it is not."""
        if link.pair is None:
            return None
        key, made = link.pair
        for source in blocks_of(key):
            for target in blocks_of(made):
                usual = _usual(self._votes[1], target, source)
                elsewhere = _usual(self._votes[0], source, target)
                if usual and elsewhere and self._fits(other := usual + key[len(source) :], key):
                    return other
        return None

    def _fits(self, other: str, key: str) -> bool:
        return other in self._have and self._have[other].shape == self._have[key].shape


def _usual(votes: Votes, block: str, other: str) -> str | None:
    """Give the block of the other's template that shares more with this one; None where none does."""
    shared = votes[block, template(other)]
    best, most = shared.most_common(1)[0]
    return best if most > shared[other] else None
