"""Read keys as dotted paths, whatever separates their words and whatever counts their blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from string import ascii_lowercase
from typing import Literal

NUMBER = re.compile(r"(?<![0-9])[0-9]+")
_LETTER = re.compile(r"(?<=[_./])[a-z](?=[./])|(?<=[0-9])[a-z](?=[._/])")
_JOIN = re.compile(r"_(?!mean|var)")


def read_keys(keys: Iterable[str]) -> dict[str, str]:
    """Read keys as dotted paths: other separators, names said twice (`a/a/kernel:0`), blocks counted with letters."""
    listed = list(keys)
    flat = not any("." in key for key in listed)
    texts = {key: _dotted(key, flat=flat) for key in listed}
    if len(set(texts.values())) < len(texts):
        texts = {key: key for key in texts}
    letters: dict[str, set[str]] = {}
    for text in texts.values():
        for found in _LETTER.finditer(text):
            letters.setdefault(template(text[: found.start()]), set()).add(found.group())
    counted = {
        start
        for start, used in letters.items()
        if len(used) > (1 if start.endswith("#") else 2) and used == set(ascii_lowercase[: len(used)])
    }

    def number(found: re.Match[str]) -> str:
        start = template(found.string[: found.start()])
        if start not in counted:
            return found[0]
        return ("." if start.endswith("#") else "") + str(ascii_lowercase.index(found[0]))

    return {key: _LETTER.sub(number, text) for key, text in texts.items()}


def template(text: str) -> str:
    """Give a text with `#` for each of its numbers."""
    return NUMBER.sub("#", text)


def blocks_of(key: str) -> Iterator[str]:
    """Give the parts of a key that end with a number: the blocks that it lies in."""
    return (key[: number.end()] for number in NUMBER.finditer(key))


def _dotted(key: str, *, flat: bool) -> str:
    """Read a key as a dotted path. In a `flat` file, which has no dots at all, underscores separate modules."""
    segments = re.split(r"[./:]", re.sub(r":[0-9]+$", "", key))
    kept = [segment for last, segment in pairwise(["", *segments]) if segment.isdigit() or segment != last]
    if flat:
        kept = [_JOIN.sub(".", segment) for segment in kept[:-1]] + kept[-1:] if len(kept) > 1 else _JOIN.split(kept[0])
    return ".".join(kept)


def place_around_blocks(keys: Iterable[str]) -> dict[str, Literal["before", "after"]]:
    """Tell of the keys that are in no repeated block whether they are defined before all of these, or after them."""
    listed = list(keys)
    counts = Counter(map(template, listed))
    inside = [at for at, key in enumerate(listed) if counts[template(key)] > 1]
    if not inside:
        return {}
    first, last = inside[0], inside[-1]
    places: dict[str, Literal["before", "after"]] = dict.fromkeys(listed[:first], "before")
    return places | dict.fromkeys(listed[last + 1 :], "after")
