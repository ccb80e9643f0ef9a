"""Move whole branches to their new place first, where what lies in several of them then changes in the same way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from msgspec.structs import replace

from ckptfix.inference.generalise.task import Task, with_keys
from ckptfix.inference.reading import template

_FEWEST_SHARED = 3
"""Changes that two branches have to share."""

Change = tuple[str, str]


def rebased(task: Task) -> Task | None:
    """Give the task over the keys that it has once branches have moved; None where that promises nothing."""
    bases = _shared_bases(task)
    dropped = set(task.dropped)
    moves: dict[str, str] = {}
    for old, new in bases.items():
        moves |= {
            key: new + key.removeprefix(old) for key in task.table if key.startswith(f"{old}.") and key not in dropped
        }
    stay = {key for key in task.table if key not in moves and key not in dropped}
    if not moves or stay & set(moves.values()) or len(set(moves.values())) < len(moves):
        return None
    pieces = [replace(piece, sources=with_keys(piece.sources, moves)) for piece in task.pieces]
    return replace(task, pieces=pieces, bases=bases)


def _shared_bases(task: Task) -> Mapping[str, str]:
    """Find what stands before the first number of keys, and becomes another text in all keys that have it."""
    changes: dict[tuple[str, str], set[Change]] = defaultdict(set)
    for piece in task.pieces:
        for source, target in zip(piece.source_keys, piece.link.target_keys, strict=False):
            old, rest = _at_first_number(source)
            new, other = _at_first_number(target)
            if old and new and rest and other:
                changes[old, new].add((template(rest), template(other)))
    counts = Counter(old for old, _ in changes)
    shared = Counter(change for found in changes.values() for change in found)
    return {
        old: new
        for (old, new), found in changes.items()
        if old != new and counts[old] == 1 and sum(shared[change] > 1 for change in found) >= _FEWEST_SHARED
    }


def _at_first_number(key: str) -> tuple[str, str]:
    """Give what stands before the first segment that is a number, and what stands after it."""
    segments = key.split(".")
    for place, segment in enumerate(segments):
        if segment.isdecimal():
            return ".".join(segments[:place]), ".".join(segments[place + 1 :])
    return "", ""
