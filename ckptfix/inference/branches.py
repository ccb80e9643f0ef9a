"""Equal modules of a target, of which a checkpoint may have one: branches of a network, members of an ensemble."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from ckptfix.inference.copies import Inside, floats, look_inside, own_words, subtrees
from ckptfix.inference.lexicon import GENERIC, likeness
from ckptfix.inference.link import Link
from ckptfix.inference.names import read_name
from ckptfix.tensors import Manifest

Branches = dict[str, frozenset[str]]
"""The keys of modules that are equal inside, by their paths."""

_LIKE = 0.8
"""Words that are alike by less do not name the same branch."""


def find_branches(want: Manifest) -> list[Branches]:
    """Find the modules that are beside each other and equal inside, unless they share tensors; mere layers are none."""
    tensors = floats(want)
    groups: dict[tuple[str, Inside], Branches] = {}
    for head, keys in subtrees(tensors).items():
        if len(keys) > 2 and len({key.rpartition(".")[0] for key in keys}) > 1:
            above = re.sub(r"[^./]*[./]$", "", head)
            groups.setdefault((above, look_inside(head, keys, tensors)), {})[head[:-1]] = frozenset(keys)
    found = [branches for branches in groups.values() if len(branches) > 1]
    return [branches for branches in found if not any(are_apart(group, branches) for group in want.tied)]


def are_apart(keys: Collection[str], branches: Branches) -> bool:
    """Tell whether keys are in different branches."""
    return sum(not inside.isdisjoint(keys) for inside in branches.values()) > 1


def find_single(branches: Iterable[Branches], links: Iterable[Link]) -> Iterator[Branches]:
    """Give the branches of which one is made and no other, unless that one is called like its source."""
    sources = {key: link.source_keys[0] for link in links for key in link.target_keys}
    for group in branches:
        made = {head: keys for head, inside in group.items() if (keys := inside & sources.keys())}
        if len(made) == 1:
            [(head, keys)] = made.items()
            words = own_words(group)[head] - GENERIC
            if 2 * sum(_is_called(words, key, sources[key]) for key in keys) <= len(keys):
                yield group


def _is_called(words: Collection[str], key: str, source: str) -> bool:
    """Tell whether a source has a word of the branch that it goes to, or all its numbers where no word is telling."""
    one, other = read_name(key), read_name(source)
    if words:
        return any(likeness(own, word) >= _LIKE for own in words for word in other.words)
    return one.numbers == other.numbers
