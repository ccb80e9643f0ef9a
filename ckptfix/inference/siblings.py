"""Modules beside each other that are equal inside: only their names can tell which is which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from ckptfix.inference.copies import Inside, floats, look_inside, own_words, subtrees
from ckptfix.inference.lexicon import GENERIC, likeness
from ckptfix.inference.link import Link, Open
from ckptfix.tensors import Manifest

_NUMBER = re.compile(r"[0-9]+")
_LETTERS = 2
"""An initial, or two letters, may stand for a word: `l` for `left`."""


def find_unnamed(links: Iterable[Link], want: Manifest) -> dict[str, Open]:
    """Find the links to equal modules whose names do not say which is which: target key to reason.

    An actor and a critic of one width may be defined in any order; so may the two eyes of a network. Modules of
    repeated blocks are left to the parts that they play there.
    """
    sources = {link.pair[1]: link.pair[0] for link in links if link.pair}
    found: dict[str, Open] = {}
    for siblings in _find_siblings(want):
        paths = {head: path for head, keys in siblings.items() if (path := _common(sources, keys))}
        for one, other in combinations(paths, 2):
            pair = paths[one], paths[other]
            if pair[0] == pair[1] or _tell(pair, (one, other)):
                continue
            which = f"which of '{pair[0]}' and '{pair[1]}' each is"
            why = f"'{one}' and '{other}' are equal inside, and no name tells {which}"
            for head, twin in ((one, other), (other, one)):
                for key in sources:
                    if key.startswith(f"{head}."):
                        beside = sources.get(f"{twin}{key.removeprefix(head)}")
                        found.setdefault(key, Open(why, (beside,) if beside else ()))
    return found


def _find_siblings(want: Manifest) -> Iterator[dict[str, list[str]]]:
    """Give the keys of modules that are beside each other and equal inside, by their paths; norms are none."""
    tensors = floats(want)
    groups: dict[tuple[str, Inside], dict[str, list[str]]] = {}
    for head, keys in subtrees(tensors).items():
        above = re.sub(r"[^./]*[./]$", "", head)
        is_layer = head[len(above) : -1].isdigit()
        if not (is_layer or _NUMBER.search(above)) and any(len(tensors[key].shape) > 1 for key in keys):
            groups.setdefault((above, look_inside(head, keys, tensors)), {})[head[:-1]] = keys
    yield from (siblings for siblings in groups.values() if len(siblings) > 1)


def _common(sources: Mapping[str, str], keys: Iterable[str]) -> str:
    """Give the path of the module that all sources of some keys are of; nothing where there is none."""
    parts = [sources[key].split(".")[:-1] for key in keys if key in sources]
    if not parts:
        return ""
    first, last = min(parts), max(parts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return ".".join(first[:length])


def _tell(sources: tuple[str, str], targets: tuple[str, str]) -> bool:
    """Tell whether two names speak for this pairing more than for the other one."""
    one, other = ({path: words - GENERIC for path, words in own_words(paths).items()} for paths in (sources, targets))
    if not any(one.values()):
        # Numbers count layers in the order of definition, which is that of the target's modules.
        return _rank(sources) == (any(other.values()) or _rank(targets))

    def alike(source: str, target: str) -> float:
        return max((_likeness(a, b) for a in one[source] for b in other[target]), default=0.0)

    straight = alike(sources[0], targets[0]) + alike(sources[1], targets[1])
    return straight > alike(sources[0], targets[1]) + alike(sources[1], targets[0])


def _likeness(one: str, other: str) -> float:
    short, long = sorted((one, other), key=len)
    return max(likeness(one, other), 0.6 if len(short) <= _LETTERS and long.startswith(short) else 0.0)


def _rank(paths: tuple[str, str]) -> bool:
    """Tell whether the numbers of the first are the smaller ones."""
    first, second = ([int(number) for number in _NUMBER.findall(path)] for path in paths)
    return first < second
