"""Say which keys are meant: those that differ by the numbers of their blocks only have one name together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

_NUMBER = re.compile(r"(?<![^./])[0-9]+(?![^./])")
_MOST_NAMED = 3
_PATH_END = re.compile(r"[./]|$")


def star(key: str) -> str:
    """Write a key with `*` for each number that stands alone between dots."""
    return _NUMBER.sub("*", key)


def name_alike(keys: Iterable[str]) -> dict[str, str]:
    """Give each key the name that it shares with those that differ from it by numbers only; its own if none does."""
    listed = list(dict.fromkeys(keys))
    alike = Counter(map(star, listed))
    return {key: name if alike[name := star(key)] > 1 else key for key in listed}


def list_names(keys: Iterable[str]) -> str:
    """List keys in quotes, those that are alike as one, and at most three."""
    names = list(dict.fromkeys(name_alike(keys).values()))
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def list_parts(parts: Iterable[str], others: Iterable[str]) -> str:
    """List modules and keys in quotes, at most three; alike ones are one only where none of the `others` is alike."""
    listed = list(dict.fromkeys(parts))
    if len(listed) > _MOST_NAMED:
        kept = {star(key[: dot.start()]) for key in others for dot in _PATH_END.finditer(key)}
        listed = list(dict.fromkeys(part if star(part) in kept else name for part, name in name_alike(listed).items()))
    more = len(listed) - _MOST_NAMED
    return ", ".join(map(repr, listed[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def list_numbers(numbers: Sequence[int]) -> str:
    """List numbers in their order, three and more that follow each other as a range: `2, 6 to 11`."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(sorted(numbers)), key=lambda placed: placed[1] - placed[0])
    ]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
