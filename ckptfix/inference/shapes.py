"""How a tensor of one shape may become one of another without a number changing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from math import prod

from ckptfix.tensors import Shape

TURNED = "o i -> i o"
"""A matrix transposed."""

_TURNS: dict[int, dict[str, Sequence[int]]] = {
    2: {TURNED: (1, 0)},
    3: {"a b c -> a c b": (0, 2, 1), "w i o -> o i w": (2, 1, 0)},
    4: {"h w i o -> o i h w": (3, 2, 0, 1), "h w c m -> c m h w": (2, 3, 0, 1)},
    5: {"d h w i o -> o i d h w": (4, 3, 0, 1, 2)},
}
"""The orders of axes that libraries differ by: matrices and filters with their inputs first or last."""

_LETTERS = "abcdefgh"


def relate(have: Shape, want: Shape) -> list[str | None]:
    """Give the layouts that lead from one shape to the other, the plainest first. None stands for "as it is".

    A square matrix may be transposed as well; its shape does not tell.
    """
    if prod(have) != prod(want) or not have or not want:
        return [None] if have == want else []
    found: list[str | None] = [None] if have == want else []
    if have != want:
        ways = _units(have, want), _units_turned(have, want), _folds(have, want), _folds_turned(have, want)
        found += [layout for layout in ways if layout]
    if max(have) > 1:
        found += [layout for layout, turn in _TURNS.get(len(have), {}).items() if _permuted(have, turn) == want]
    return list(dict.fromkeys(found))


@cache
def is_turned(layout: str | None) -> bool:
    """Tell whether the first axis of a layout, but for those of extent 1, comes later afterwards."""
    if layout is None:
        return False
    before, after = (re.findall(r"[a-z]\w*|\.\.\.", side) for side in layout.split(" -> "))
    return before[:1] != after[:1]


def _permuted(shape: Shape, order: Sequence[int]) -> Shape:
    return tuple(shape[axis] for axis in order)


def _units(have: Shape, want: Shape) -> str | None:
    """Add or take away axes of extent 1."""
    if [extent for extent in have if extent != 1] != [extent for extent in want if extent != 1]:
        return None
    names = iter(_LETTERS)
    real = [next(names) for extent in have if extent != 1]
    left, right = iter(real), iter(real)
    before = " ".join("1" if extent == 1 else next(left) for extent in have)
    after = " ".join("1" if extent == 1 else next(right) for extent in want)
    return f"{before} -> {after}"


def _units_turned(have: Shape, want: Shape) -> str | None:
    """Transpose a matrix that is written with axes of extent 1 on one side: `1 1 i o -> o i`."""
    real = [[extent for extent in shape if extent != 1] for shape in (have, want)]
    if len(have) == len(want) or len(real[0]) != 2 or real[0] != real[1][::-1]:
        return None
    names = [iter("io"), iter("oi")]
    sides = zip((have, want), names, strict=True)
    return " -> ".join(" ".join("1" if extent == 1 else next(letters) for extent in shape) for shape, letters in sides)


def _folds(have: Shape, want: Shape) -> str | None:
    """Fold neighbouring axes into one, or unfold one."""
    short, long = (have, want) if len(have) < len(want) else (want, have)
    if len(short) == len(long) or 1 in short or 1 in long:
        return None
    groups: list[list[str]] = []
    names = iter(_LETTERS)
    rest = list(long)
    for extent in short:
        group: list[str] = []
        size = 1
        while size < extent and rest:
            size *= rest.pop(0)
            group.append(next(names))
        if size != extent:
            return None
        groups.append(group)
    if rest:
        return None
    folded = " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)
    unfolded = " ".join(name for group in groups for name in group)
    return f"{folded} -> {unfolded}" if short is have else f"{unfolded} -> {folded}"


def _folds_turned(have: Shape, want: Shape) -> str | None:
    """Transpose a matrix whose one side is unfolded into heads: `i h d -> (h d) i`, and the ways back."""
    if sorted((len(have), len(want))) != [2, 3] or 1 in (*have, *want):
        return None
    (one, other), (a, b, c) = sorted((have, want), key=len)
    for folded, unfolded, fits in (("(b c) a", "a b c", (b * c, a)), ("c (a b)", "a b c", (c, a * b))):
        if fits == (one, other):
            return f"{folded} -> {unfolded}" if len(have) == 2 else f"{unfolded} -> {folded}"
    return None


def relate_stacked(have: Shape, want: Shape) -> list[str | None]:
    """Relate shapes where one side is stacked along the first axis."""
    if have[:1] != want[:1]:
        return []
    inner = relate(have[1:], want[1:])
    return [f"e {(layout or '... -> ...').replace(' -> ', ' -> e ')}" for layout in inner]
