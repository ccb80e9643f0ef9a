"""Make one line of several that differ in a text: `a.weight` -> `b.weight` and `a.bias` -> `b.bias`, say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from ckptfix.inference.generalise.line import BRACES, Line, own_names

_ROUNDS = 3
_MOST_LINES = 400
"""Lines of one round that are widened further, those that cover the most."""
_MOST_ALIKE = 6
"""Lines of one round for the same links that are kept, those that cost the least."""
_PARTS = re.compile(r"[._/]")
_RUN = "{_r:**}"


def widened(lines: Iterable[Line]) -> list[Line]:
    """Write lines that each stand for several of those given. They may match more than they should."""
    known = {line.sides: line for line in lines}
    latest = list(known.values())
    found: list[Line] = []
    for _ in range(_ROUNDS):
        merged: dict[tuple[str, ...], Line] = {}
        parents: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
        for line in latest:
            for wider in _wider(line):
                parents[wider.sides].add(line.sides)
                other = merged.get(wider.sides)
                merged[wider.sides] = wider if other is None else replace(wider, covers=wider.covers | other.covers)
        latest = _best(
            line
            for sides, line in merged.items()
            if len(parents[sides]) > 1
            and (sides not in known or known[sides].covers | line.covers != known[sides].covers)
        )
        known |= {line.sides: line for line in latest}
        found += latest
    return list({line.sides: line for line in found}.values())


def _best(lines: Iterable[Line]) -> list[Line]:
    kept: dict[int, int] = defaultdict(int)
    best: list[Line] = []
    for line in sorted(lines, key=lambda line: (-line.covers.bit_count(), line.price)):
        kept[line.covers] += 1
        if kept[line.covers] <= _MOST_ALIKE:
            best.append(line)
    return best[:_MOST_LINES]


def _wider(line: Line) -> Iterator[Line]:
    """Put a placeholder for one text that stands once on every side, or for a run of segments."""
    for text in dict.fromkeys(_units(line.patterns[0])):
        sides = _with_placeholder(line.sides, text)
        if sides is not None:
            yield from _kept(line, sides)
    if not any("**" in pattern for pattern in line.patterns):
        for sides in _with_run(line.sides, len(line.patterns)):
            yield from _kept(line, sides)


def _units(pattern: str) -> Iterator[str]:
    """Give the segments of a pattern, and their parts between underscores."""
    for segment in pattern.split("."):
        if not segment.startswith("{_") or not segment.endswith("}") or segment.count("{") > 1:
            yield segment
        for part in _PARTS.split(BRACES.sub("{", segment)):
            if part != segment and part.isalnum() and not part.isdigit():
                yield part


def _with_placeholder(sides: tuple[str, ...], text: str) -> tuple[str, ...] | None:
    """Replace a text that stands once on each side; None where it does not."""
    standing = re.compile(rf"(?<![^._/]){re.escape(text)}(?![^._/])")
    name = f"_t{max((int(own[2:]) for own in own_names(sides) if own.startswith('_t')), default=-1) + 1}"
    written: list[str] = []
    for side in sides:
        if len(standing.findall(side)) != 1:
            return None
        written.append(standing.sub(f"{{{name}}}", side))
    return tuple(written)


def _with_run(sides: tuple[str, ...], patterns: int) -> Iterator[tuple[str, ...]]:
    """Replace segments that all sides share: at the beginning, at the end, or in the middle of a pair."""
    split = [tuple(side.split(".")) for side in sides]
    shortest = min(len(segments) for segments in split)
    head = count_common(split, shortest)
    tail = count_common([segments[::-1] for segments in split], shortest)
    for length in range(1, head + 1):
        yield _joined([((), segments[length:]) for segments in split], patterns)
    for length in range(1, tail + 1):
        yield _joined([(segments[:-length], ()) for segments in split], patterns)
    if len(split) == 2:
        for start, other, length in _blocks(*split):
            before, after = split
            yield _joined(
                [(before[:start], before[start + length :]), (after[:other], after[other + length :])], patterns
            )


def count_common(split: Sequence[Sequence[str]], most: int) -> int:
    """Count the segments from the beginning, at most `most`, that are the same on all sides."""
    return next((place for place in range(most) if len({side[place] for side in split}) > 1), most)


def _blocks(before: tuple[str, ...], after: tuple[str, ...]) -> Iterator[tuple[int, int, int]]:
    """Give the longest runs of at least two segments that both have, not at an end of both."""
    for start in range(len(before)):
        for other in range(len(after)):
            if start and other and before[start - 1] == after[other - 1]:
                continue
            length = count_common([before[start:], after[other:]], min(len(before) - start, len(after) - other))
            if length > 1 and (start or other) and (start + length < len(before) or other + length < len(after)):
                yield start, other, length


def _joined(parts: list[tuple[tuple[str, ...], tuple[str, ...]]], patterns: int) -> tuple[str, ...]:
    return tuple(
        ".".join((*before, _RUN if side < patterns else "{_r}", *after)) for side, (before, after) in enumerate(parts)
    )


def _kept(line: Line, sides: tuple[str, ...]) -> Iterator[Line]:
    """Give the line where every pattern still has each name that the templates use, and no other is lost."""
    count = len(line.patterns)
    names = set(own_names(sides[count:]))
    names = {name for name in names if not name.startswith("_v")}
    if all(names == set(own_names((pattern,))) for pattern in sides[:count]):
        yield line.with_sides(sides, line.covers)
