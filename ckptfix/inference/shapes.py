"""How a tensor of one shape may become one of another without a number changing."""

from __future__ import annotations

from math import prod

from ckptfix.tensors import Shape

TURNED = "o i -> i o"
"""A matrix transposed."""

_LETTERS = "abcdefgh"


def relate(have: Shape, want: Shape) -> list[str | None]:
    """Give the layouts that lead from one shape to the other, the plainest first. None stands for "as it is".

    A square matrix may be transposed as well; its shape does not tell.
    """
    if have == want:
        return [None, TURNED] if len(have) == 2 and have[0] == have[1] > 1 else [None]
    if prod(have) != prod(want) or not have or not want:
        return []
    found = [layout for layout in (_units(have, want), _folds(have, want)) if layout]
    if len(have) == 2 and have[::-1] == want:
        found.append(TURNED)
    if len(have) == len(want) == 3 and have[0] == want[0] and have[:0:-1] == want[1:]:
        found.append("a b c -> a c b")
    if len(have) == len(want) == 4:
        height, width, inputs, outputs = have
        if want == (outputs, inputs, height, width):
            found.append("h w i o -> o i h w")
        if want == (inputs, outputs, height, width):
            found.append("h w c m -> c m h w")
    return list(dict.fromkeys(found))


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


def relate_stacked(have: Shape, want: Shape) -> list[str | None]:
    """Relate shapes where one side is stacked along the first axis."""
    if have[:1] != want[:1]:
        return []
    inner = relate(have[1:], want[1:])
    return [f"e {layout.replace(' -> ', ' -> e ')}" if layout else "e ... -> e ..." for layout in inner]
