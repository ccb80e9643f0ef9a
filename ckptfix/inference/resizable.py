"""Tensors that are the same in meaning and differ in extent: how to give one the shape of the other."""

from __future__ import annotations

import math

from ckptfix.inference.lexicon import concept
from ckptfix.inference.slots import Slot
from ckptfix.tensors import Shape

Fields = dict[str, object]


def find_resize(
    source: Slot, target: Slot, have: Shape, want: Shape, vocabularies: tuple[int, int] | None
) -> Fields | None:
    """Give the fields of a resize rule, `keys` apart; None for tensors that no resize leads from one to the other.

    `vocabularies` are the numbers of tokens of both sides, where they are known to differ.
    """
    if len(have) != len(want) or have == want:
        return None
    meant = {concept(word) for word in (*source.name.words, *target.name.words)}
    changed = [axis for axis, (old, new) in enumerate(zip(have, want, strict=True)) if old != new]
    if "relative" in meant and len(have) == 2 and changed == [0]:
        return _relative_table(have[0], want[0])
    if "position" in meant and changed in ([0], [1]) and len(have) in (2, 3):
        return _positions(have, want, changed[0])
    if changed == [0] and len(have) <= 2 and (have[0], want[0]) == vocabularies:
        return _rows(have, want)
    if len(have) >= 4 and changed == [1] and have[1] <= 16 and want[1] <= 16:
        return _channels(have, want)
    if len(have) == 4 and changed == [2, 3] and "patch" in meant:
        return {"layout": "o i h w", "axes": ["h", "w"], "mode": "pinv", "antialias": True}
    return None


def _relative_table(have: int, want: int) -> Fields | None:
    for others in (0, 3):  # BEiT's tables have three rows more, for its class token
        if _is_square(have - others) and _is_square(want - others):
            layout = "((h w) + o) n" if others else "(h w) n"
            fields: Fields = {"layout": layout, "axes": ["h", "w"], "mode": "geometric"}
            return fields | ({"sizes": {"o": others}} if others else {})
    return None


def _positions(have: Shape, want: Shape, axis: int) -> Fields | None:
    """Resample a grid behind the rows of its tokens; cut the rows of a text.

    None where the rows may differ by tokens rather than by places, and where a text would need more of them.
    """
    old, new = have[axis], want[axis]
    for tokens in (1, 0, 2):
        if _is_square(old - tokens) and _is_square(new - tokens) and axis == len(have) - 2:
            lead = "1 " if len(have) == 3 else ""
            layout = f"{lead}(p + (h w)) c" if tokens else f"{lead}(h w) c"
            fields: Fields = {"layout": layout, "axes": ["h", "w"], "mode": "bicubic", "antialias": True}
            return fields | ({"sizes": {"p": tokens}} if tokens else {})
    if len(have) == 2 and axis == 0 and new < old - 2:
        return {"layout": "n c", "axes": ["n"], "mode": "crop"}
    return None


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _rows(have: Shape, want: Shape) -> Fields:
    fields: Fields = {"layout": "v c" if len(have) == 2 else "v", "axes": ["v"]}
    return fields | ({"mode": "crop"} if want[0] < have[0] else {"mode": "pad", "fill": "mean"})


def _channels(have: Shape, want: Shape) -> Fields:
    layout = " ".join(["o", "i", *"hwt"[: len(have) - 2]])
    fields: Fields = {"layout": layout, "axes": ["i"]}
    return fields | ({"mode": "sum"} if want[1] == 1 else {"mode": "tile", "rescale": True})
