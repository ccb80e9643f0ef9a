"""Pieces and the whole that they make: the parts that axes fall into, and the pieces that count along one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.inference.example.embed import stride_of
from ckptfix.inference.example.strides import Digit, Strided, split_at
from ckptfix.inference.link import Term
from ckptfix.tensors import Shape

_NUMBER = re.compile(r"[0-9]+")


class Placed(Struct, frozen=True):
    """A tensor, and where it lies in the whole."""

    key: str
    shape: Shape
    found: Strided


class Part(Struct, frozen=True):
    """A digit that stays within an axis of each side, and moves by `piece_step` and `whole_step` there.

    `piece_axis` is None for the count of stacked pieces, `whole_axis` None for a repetition. `swapped` says that its
    two halves stand in the other order in the piece.
    """

    size: int
    piece_axis: int | None
    piece_step: int
    whole_axis: int | None
    whole_step: int
    swapped: bool = False


class Family(Struct, frozen=True):
    """Pieces of one shape that lie alike, as a term; where the first one starts along each axis of the whole."""

    term: Term
    shape: Shape
    starts: tuple[int, ...]
    parts: tuple[Part, ...]


def find_families(whole: Shape, pieces: Sequence[Placed]) -> list[Family] | None:
    """Sort pieces into families, in the order in which they lie. None where a digit reaches over axes."""
    families: list[Family] = []
    for group in _counting_groups(pieces):
        found = _family(whole, group)
        if found is None:
            return None
        families.append(found)
    return sorted(families, key=lambda family: family.starts)


def _family(whole: Shape, group: Sequence[Placed]) -> Family | None:
    first = group[0]
    start, parts = first.found.start, []
    digits = split_at(first.found.digits, first.shape, "piece")
    digits = split_at(digits, whole, "whole") if digits is not None else None
    if digits is None:
        return None
    for digit in digits:
        if digit.size == 1:
            continue
        if digit.whole < 0:
            start += digit.whole * (digit.size - 1)
        piece_axis, piece_step = _axis_of(first.shape, digit.piece)
        whole_axis, whole_step = _axis_of(whole, abs(digit.whole)) if digit.whole else (None, 0)
        parts.append(Part(digit.size, piece_axis, piece_step, whole_axis, whole_step, digit.whole < 0))
    if len(group) > 1:
        step = group[1].found.start - first.found.start
        counted = split_at((Digit(len(group), 1, step),), whole, "whole")
        if counted is None or len(counted) > 1:
            return None
        whole_axis, whole_step = _axis_of(whole, step)
        parts.append(Part(len(group), None, 0, whole_axis, whole_step))
    merged = _merge_swapped(parts)
    starts = tuple(start // stride_of(whole, axis) % extent for axis, extent in enumerate(whole))
    term = Term(tuple(piece.key for piece in group), "e" if len(group) > 1 else None)
    return Family(term, first.shape, starts, merged) if merged is not None else None


def _axis_of(shape: Shape, step: int) -> tuple[int, int]:
    """Give the axis along which a step over the flat tensor moves, and by how much."""
    for axis, extent in enumerate(shape):
        stride = stride_of(shape, axis)
        if stride <= step < stride * extent:
            return axis, step // stride
    raise AssertionError((shape, step))


def _merge_swapped(parts: Sequence[Part]) -> tuple[Part, ...] | None:
    """Take a digit that runs backwards, with all below it, as two halves that change places. None for other ones."""
    result = list(parts)
    for part in parts:
        if part.swapped:
            inner = [
                other
                for other in result
                if (other.piece_axis, other.whole_axis) == (part.piece_axis, part.whole_axis)
                and other.piece_step < part.piece_step
                and other.piece_step == other.whole_step
            ]
            length = 1
            for other in inner:
                length *= other.size
            if part.size != 2 or length != part.piece_step or length != part.whole_step:
                return None
            result = [other for other in result if other not in inner and other != part]
            result.append(replace(part, size=2 * length, piece_step=1, whole_step=1))
    return tuple(result)


def _counting_groups(pieces: Sequence[Placed]) -> list[list[Placed]]:
    """Put pieces together whose keys count from 0 and that follow each other in even steps; others stay alone."""
    groups: list[list[Placed]] = []
    left = list(pieces)
    while left:
        group = max((_counting(left, slot) for slot in _slots(left[0].key)), key=len, default=[left[0]])
        groups.append(group)
        left = [piece for piece in left if piece not in group]
    return groups


def _slots(key: str) -> list[tuple[int, int]]:
    return [found.span() for found in _NUMBER.finditer(key)]


def _counting(pieces: Sequence[Placed], slot: tuple[int, int]) -> list[Placed]:
    """Give the pieces whose keys differ from the first one's in the number in one place only."""
    first = pieces[0]
    before, after = first.key[: slot[0]], first.key[slot[1] :]
    numbered = {
        int(middle): piece
        for piece in pieces
        if piece.key.startswith(before)
        and piece.key.endswith(after)
        and (middle := piece.key[len(before) : len(piece.key) - len(after)]).isdecimal()
        and (piece.shape, piece.found.digits) == (first.shape, first.found.digits)
    }
    counted = [numbered[number] for number in sorted(numbered)]
    steps = {after.found.start - before.found.start for before, after in pairwise(counted)}
    if sorted(numbered) != list(range(len(numbered))) or len(steps) != 1 or min(steps) <= 0:
        return [first]
    return counted


def covers(whole: Shape, pieces: Iterable[Placed]) -> bool:
    """Tell whether pieces, none of which overlap, are as many numbers as the whole has."""
    used = 0
    for piece in pieces:
        count = 1
        for digit in piece.found.digits:
            count *= digit.size if digit.whole else 1
        used += count
    return used == stride_of((0, *whole), 0)
