"""Gather keys that belong together: those that agree in some placeholders, in order along the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from math import prod

from msgspec import Struct

from ckptfix.errors import PatternError
from ckptfix.keys.nearest import nearest_keys
from ckptfix.keys.pattern import KeyPattern, placeholders_of, put_for_placeholders

_MOST_SHOWN = 6
_MEND = "drop the keys without partners first, or narrow the pattern"


class Member(Struct, frozen=True):
    """A key, and its place along each placeholder that it is stacked by, counted from 0."""

    key: str
    place: tuple[tuple[str, int], ...] = ()


class Group(Struct, frozen=True):
    """The keys of every pattern that agree in the shared placeholders, whose texts are in `bound`."""

    bound: Mapping[str, str]
    members: tuple[tuple[Member, ...], ...]

    @property
    def first(self) -> str:
        """A key to name the group by."""
        return self.members[0][0].key

    @property
    def extents(self) -> dict[str, int]:
        """The number of places along each placeholder that is stacked by."""
        extents: dict[str, int] = {}
        for members in self.members:
            for member in members:
                for name, number in member.place:
                    extents[name] = max(extents.get(name, 0), number + 1)
        return extents


def gather(patterns: Sequence[KeyPattern], keys: Collection[str], shared: Collection[str]) -> list[Group]:
    """Gather the keys of several patterns by their shared placeholders, in the order of the keys.

    Along each other placeholder the values are consecutive integers, in numeric order, or the texts that the pattern
    lists, in that order. Raises PatternError for a gap, a missing partner, or a pattern without a shared placeholder.
    """
    names = [name for name in dict.fromkeys(name for pattern in patterns for name in pattern.names) if name in shared]
    for pattern in patterns:
        if lacking := [name for name in names if name not in pattern.names]:
            raise PatternError(f"'{pattern}' has no {{{lacking[0]}}}, by which the others are told apart")
    found: dict[tuple[str, ...], list[list[tuple[str, dict[str, str]]]]] = {}
    for number, pattern in enumerate(patterns):
        for key, bound in pattern.matches(keys):
            group = found.setdefault(tuple(bound[name] for name in names), [[] for _ in patterns])
            group[number].append((key, bound))
    return [_order(patterns, dict(zip(names, values, strict=True)), members, keys) for values, members in found.items()]


def _order(
    patterns: Sequence[KeyPattern],
    shared: dict[str, str],
    found: list[list[tuple[str, dict[str, str]]]],
    present: Collection[str],
) -> Group:
    for pattern, members in zip(patterns, found, strict=True):
        if not members:
            other = next(keys[0][0] for keys in found if keys)
            raise _incomplete(f"'{pattern}' has no partner for '{other}'", pattern, shared, present)
    orders: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(name for pattern in patterns for name in pattern.names if name not in shared):
        values = {bound[name] for members in found for _, bound in members if name in bound}
        listed = next(pattern.choices[name] for pattern in patterns if name in pattern.names)
        orders[name] = _places(name, values, listed)
    ordered = [
        tuple(
            sorted(
                (
                    Member(key, tuple((name, orders[name][bound[name]]) for name in pattern.names if name in orders))
                    for key, bound in keys
                ),
                key=lambda member: member.place,
            )
        )
        for pattern, keys in zip(patterns, found, strict=True)
    ]
    for pattern, row in zip(patterns, ordered, strict=True):
        _check_whole(pattern, row, {name: orders[name] for name in pattern.names if name in orders}, shared, present)
    return Group(shared, tuple(ordered))


def _check_whole(
    pattern: KeyPattern,
    row: Sequence[Member],
    along: Mapping[str, Mapping[str, int]],
    shared: Mapping[str, str],
    present: Collection[str],
) -> None:
    """Hold a row to one key for every place. Raises PatternError."""
    wanted = prod(map(len, along.values()))
    if len(row) == wanted:
        return
    taken = {member.place for member in row}
    for texts in product(*along.values()):
        bound = dict(zip(along, texts, strict=True))
        if tuple((name, along[name][text]) for name, text in bound.items()) not in taken:
            where = ", ".join(f"{name} = {text}" for name, text in bound.items())
            message = f"'{pattern}' has {len(row)} of {wanted} keys, none at {where}"
            raise _incomplete(message, pattern, {**shared, **bound}, present)
    raise PatternError(
        f"'{pattern}' has {len(row)} keys, its placeholders tell {wanted} apart", hint="name its wildcards: {x} for *"
    )


def _incomplete(message: str, pattern: KeyPattern, texts: Mapping[str, str], present: Collection[str]) -> PatternError:
    """Make the error for a key that is not there, with the keys that read most like it."""
    names = placeholders_of(pattern.text)
    lacking = pattern.text
    if names is not None:
        lacking = put_for_placeholders(pattern.text, {name: texts.get(name, f"{{{name}}}") for name in names})
    near = nearest_keys(lacking, present)
    nearest = f"nearest to '{lacking}': {', '.join(near)}; " if near else ""
    return PatternError(f"incomplete group: {message}", hint=f"{nearest}{_MEND}")


def _places(name: str, values: set[str], listed: tuple[str, ...]) -> dict[str, int]:
    """Number the values of one placeholder."""
    if listed:
        order = [text for text in listed if text in values]
        if len(order) < len(listed):
            lacking = next(text for text in listed if text not in values)
            raise PatternError(
                f"incomplete group: along '{name}' there are {', '.join(order)}, and no {lacking}", hint=_MEND
            )
        return {text: place for place, text in enumerate(order)}
    try:
        numbers = sorted((int(text), text) for text in values if text.isascii() and text.isdecimal())
    except ValueError as error:  # more digits than Python converts
        raise PatternError(f"'{name}' has a number that is too large") from error
    if len(numbers) < len(values):
        stray = sorted(text for text in values if not text.isdecimal())
        raise PatternError(
            f"along '{name}' there is '{stray[0]}', not an integer", hint=f"match it with {{{name}:int}}"
        )
    run = range(numbers[0][0], numbers[0][0] + len(numbers))
    if [number for number, _ in numbers] != list(run):
        gap = next(wanted for wanted, (number, _) in zip(run, numbers, strict=True) if number != wanted)
        shown = ", ".join(text for _, text in numbers[:_MOST_SHOWN]) + (", ..." if len(numbers) > _MOST_SHOWN else "")
        raise PatternError(f"incomplete group: along '{name}' there are {shown}, and no {gap}", hint=_MEND)
    return {text: place for place, (_, text) in enumerate(numbers)}
