"""What is open, as a reader wants it: keys of one reason together, and one line for what is alike in every block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from ckptfix.inference.link import Open
from ckptfix.inference.reading import NUMBER, template
from ckptfix.inference.settle import Ambiguity

_FEWEST_ALIKE = 3
"""Keys that differ only in a number, from which on one line stands for them."""
_MOST_CANDIDATES = 3
_QUOTED = re.compile(r"'[^']*'")
_COPIED = re.compile(r"copy it from '[^']*'$")


class Row(Struct, frozen=True):
    """Keys of one text, with `*` for the numbers in which they differ; `candidates` are written in the same way."""

    text: str
    count: int
    candidates: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write the row with its count and its first candidates."""
        count = f" ({self.count} keys)" if self.count > 1 else ""
        more = ["..."] if len(self.candidates) > _MOST_CANDIDATES else []
        choice = " or ".join([*self.candidates[:_MOST_CANDIDATES], *more])
        return f"{self.text}{count}{f' from {choice}' if choice else ''}"


class Group(Struct, frozen=True):
    """Target keys that are open for one reason, which begins with what they are: ambiguous or unresolved."""

    reason: str
    rows: tuple[Row, ...]

    @property
    def count(self) -> int:
        """How many keys are in it."""
        return sum(row.count for row in self.rows)


def group_open(ambiguous: Iterable[Ambiguity], unresolved: Mapping[str, Open]) -> tuple[Group, ...]:
    """Group what is open by its reason; reasons that differ only in the numbers of keys that they name are one."""
    found = [(f"ambiguous, {doubt.why}", doubt.target, doubt.candidates) for doubt in ambiguous]
    found += [(f"unresolved, {reason.why}", key, ()) for key, reason in unresolved.items()]
    groups: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {}
    for item in found:
        groups.setdefault(_QUOTED.sub(lambda quoted: template(quoted[0]), item[0]), []).append(item)
    return tuple(
        Group(_common([reason for reason, _, _ in items]), tuple(_rows([(key, others) for _, key, others in items])))
        for items in groups.values()
    )


def _common(reasons: Sequence[str]) -> str:
    """Star the names in which reasons differ; what is to be copied is named as the first has it: it is to be found."""
    text = starred(reasons)
    first, common = _COPIED.search(reasons[0]), _COPIED.search(text)
    if first is None or common is None or first[0] == common[0]:
        return text
    return f"{text[: common.start()]}{first[0]} and so on"


def _rows(keys: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[Row]:
    alike: dict[object, list[tuple[str, tuple[str, ...]]]] = {}
    for key, candidates in keys:
        alike.setdefault((template(key), tuple(map(template, candidates))), []).append((key, candidates))
    for members in alike.values():
        if len(members) < _FEWEST_ALIKE:
            yield from (Row(key, 1, candidates) for key, candidates in members)
        else:
            sources = zip(*(candidates for _, candidates in members), strict=True)
            yield Row(starred([key for key, _ in members]), len(members), tuple(dict.fromkeys(map(starred, sources))))


def starred(texts: Sequence[str]) -> str:
    """Give the text that all are, with `*` for the numbers in which they differ. They differ in nothing else."""
    numbers = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    shown = iter([found[0] if len(set(found)) == 1 else "*" for found in numbers])
    return NUMBER.sub(lambda _: next(shown), texts[0])
