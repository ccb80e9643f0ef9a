"""Several tensors laid end to end in one: queries, keys and values, gates and ways up."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfix.inference.names import kinds_agree
from ckptfix.inference.slots import Slot
from ckptfix.tensors import Shape


def fuse(parts: Sequence[Slot], whole: Slot, names: Sequence[str], *, split: bool, turned: bool | None) -> str | None:
    """Give the layout that joins the parts along one axis, where their extents add up in every block.

    `turned` says whether matrices of this file are transposed, where that is known: squares do not show it.
    """
    if any(len(part.shapes) != len(whole.shapes) or not kinds_agree(part.name, whole.name) for part in parts):
        return None
    together = set(zip(*(part.shapes for part in parts), whole.shapes, strict=True))
    layouts = {_join_axis(shapes[:-1], shapes[-1], names, turned) for shapes in together}
    layout = layouts.pop() if len(layouts) == 1 else None
    if layout is None:
        return None
    stacked = any(part.terms[0].axis for part in parts)
    separate, fused = layout
    if stacked and whole.terms[0].axis is None and not separate.startswith("e "):
        return None
    return f"{fused} -> {separate}" if split else f"{separate} -> {fused}"


def _join_axis(
    parts: Sequence[Shape], whole: Shape, names: Sequence[str], known: bool | None
) -> tuple[str, str] | None:
    ranks = {len(part) for part in parts} | {len(whole)}
    if len(ranks) != 1 or whole == ():
        return None
    (rank,) = ranks
    letters = "xyz"
    lead = ["e"] if rank == 3 else []
    offset = len(lead)
    for axis in range(offset, rank):
        square = all(len(part) == 2 and part[0] == part[1] for part in parts)
        for turned in (known,) if square and known is not None else (False, True):
            if turned and rank - offset != 2:
                continue
            there = [tuple(part[:offset]) + tuple(reversed(part[offset:])) if turned else tuple(part) for part in parts]
            fits = sum(part[axis] for part in there) == whole[axis] and all(
                part[:axis] + part[axis + 1 :] == whole[:axis] + whole[axis + 1 :] for part in there
            )
            if not fits:
                continue
            axes = [*lead, *letters[: rank - offset]]
            if axis == 0 and not turned:  # all other axes are as they are, however many
                axes = ["", "..."]
            fused = list(axes)
            fused[axis] = f"({'+'.join(names)})"
            separate = []
            for name in names:
                own = list(axes)
                own[axis] = name
                separate.append(" ".join([*own[:offset], *reversed(own[offset:])] if turned else own))
            return ", ".join(separate), " ".join(fused)
    return None
