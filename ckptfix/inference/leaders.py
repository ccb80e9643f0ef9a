"""Which weight a vector goes with, and what modules a place lies in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptfix.inference.names import parent_of
from ckptfix.inference.slots import Slot, is_sorted, read_slots
from ckptfix.tensors import Manifest


def read_leaders(manifest: Manifest, reads: Mapping[str, str]) -> dict[str, str]:
    """Find the weight that each vector of a manifest goes with, by the texts that `reads` has for their keys."""
    slots = read_slots({key: spec for key, spec in manifest.items() if spec.shape}, reads)
    return find_leaders(slots, ordered=not is_sorted(slots))


def find_leaders_by_key(manifest: Manifest, reads: Mapping[str, str]) -> dict[str, str]:
    """Find the same by the keys of both."""
    keys = {text: key for key, text in reads.items()}
    return {keys[vector]: keys[leader] for vector, leader in read_leaders(manifest, reads).items()}


def find_leaders(slots: Sequence[Slot], *, ordered: bool) -> dict[str, str]:
    """Find the weight that each vector goes with: the one beside it in a module of the two, or that it follows.

    A norm stands beside the convolution that it follows, or comes next where the order is that of definition.
    """
    leaders: dict[str, str] = {}
    beside: dict[str, list[Slot]] = {}
    numbered: dict[tuple[object, ...], list[Slot]] = {}
    for slot in slots:
        if len(slot.shapes[0]) > 1:
            beside.setdefault(parent_of(slot.name.parent), []).append(slot)
            numbered.setdefault((parent_of(slot.name.parent), slot.name.numbers), []).append(slot)
    last: Slot | None = None
    for slot in sorted(slots, key=lambda slot: slot.position):
        if len(slot.shapes[0]) > 1:
            last = slot if len(slot.shapes[0]) > 2 else None
            continue
        above = parent_of(slot.name.parent)
        same = numbered.get((above, slot.name.numbers), []) if slot.name.numbers else []
        if len(beside.get(above, [])) == 1 and "." in slot.name.parent:
            leaders[slot.place] = beside[above][0].place
        elif len(same) == 1 and not (ordered and same[0].position > slot.position):
            leaders[slot.place] = same[0].place
        elif ordered and last is not None and last.shapes[0][0] == (slot.shapes[0] or (0,))[0]:
            leaders[slot.place] = last.place
    return leaders


def find_parents(slot: Slot) -> tuple[str, ...]:
    """Give the modules above a place, innermost first."""
    parents = [slot.name.parent]
    while parents[-1]:
        parents.append(parent_of(parents[-1]))
    return tuple(parents)
