"""Find the keys that a pattern may match by what they begin and end with, instead of trying every key."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

_Group = dict[str, None]
"""Keys in their order, each once."""
_Cut = Callable[[str, int], str | None]
"""Gives so many segments of a key, at one of its ends."""
_MOST_SEGMENTS = 3


class Searchable(Mapping[str, T]):
    """A mapping that finds its keys by their ends."""

    @abstractmethod
    def between(self, start: str, end: str) -> list[str]:
        """List the keys that begin with one text and end with another, in the order of the mapping."""


class KeyIndex:
    """The keys of a mapping by their first, or last, segments.

    By how many is settled as patterns ask: the first that asks has all keys sorted, the others look theirs up.
    """

    def __init__(self, keys: Mapping[str, object]) -> None:
        self.keys = keys
        self._new: list[str] = []
        self._sorted: dict[tuple[_Cut, int], dict[str | None, _Group]] = {}

    def follow(self, keys: Mapping[str, object], new: Iterable[str]) -> None:
        """Go on with a mapping that has lost some keys and then got the `new` ones, last of all."""
        self.keys = keys
        self._new += new

    def between(self, start: str, end: str) -> list[str]:
        """List the keys that begin with one text and end with another, in the order of the mapping."""
        cut, text = (_last, end) if end.count(".") >= start.count(".") else (_first, start)
        number = min(text.count("."), _MOST_SEGMENTS)
        found: Iterable[str] = self._by(cut, number).get(cut(text, number), ()) if number else self.keys
        return [key for key in found if key.startswith(start) and key.endswith(end) and key in self.keys]

    def _by(self, cut: _Cut, number: int) -> dict[str | None, _Group]:
        """Sort in what has come since, and give the keys by so many segments."""
        for (known, segments), groups_of in self._sorted.items():
            for key in self._new:
                group = groups_of.setdefault(known(key, segments), {})
                group.pop(key, None)
                group[key] = None
        self._new.clear()
        groups = self._sorted.get((cut, number))
        if groups is None:
            groups = self._sorted[cut, number] = {}
            for key in self.keys:
                groups.setdefault(cut(key, number), {})[key] = None
        return groups


def _first(text: str, number: int) -> str | None:
    """Give so many segments at the beginning, with the dot behind each; None where there are fewer."""
    parts = text.split(".", number)
    return text[: len(text) - len(parts[-1])] if len(parts) > number else None


def _last(text: str, number: int) -> str | None:
    """Give so many segments at the end, with the dot before each; None where there are fewer."""
    parts = text.rsplit(".", number)
    return text[len(parts[0]) :] if len(parts) > number else None
