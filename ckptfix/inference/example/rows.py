"""Find the rows of a source that a target holds, in whatever order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ckptfix.inference.example.bits import Hashes
from ckptfix.inference.example.result import Taken
from ckptfix.inference.example.search import Sides
from ckptfix.inference.link import Link, Term
from ckptfix.tensors import Shape

_LETTERS = "abcdfgijklmopqrstuvwxyz"


def find_taken(sides: Sides, targets: Iterable[str], free: AbstractSet[str]) -> Iterator[Taken]:
    """Give the targets that rows of one unused source make. Several may share a source."""
    for target in targets:
        found = _taken(sides, target, free)
        if found is not None:
            yield found


def _taken(sides: Sides, target: str, free: AbstractSet[str]) -> Taken | None:
    print_, spec = sides.prints[target], sides.want[target]
    if print_ is None:
        return None
    for axes, sums in print_.slices.items():
        if len(axes) != 1:
            continue
        for hit in sides.indices[spec.dtype].shared(print_, axes):
            have = sides.have[hit.key].shape
            if hit.key not in free or hit.axes != axes or hit.others < len(np.unique(sums)):
                continue
            axis = _changed_axis(have, spec.shape, axes[0])
            rows = _places(sums, sides.source_prints[spec.dtype][hit.key].slices[axes])
            if axis is not None and _agree(sides, hit.key, target, axis, rows):
                return Taken(hit.key, target, axis, tuple(rows.tolist()))
    return None


def _changed_axis(have: Shape, want: Shape, squeezed: int) -> int | None:
    """Give the one axis that differs, or the one that is the n-th of those longer than 1."""
    if len(have) != len(want):
        return None
    long = [axis for axis, extent in enumerate(have) if extent != 1]
    axis = long[squeezed] if squeezed < len(long) else None
    same = all(have[other] == want[other] for other in range(len(have)) if other != axis)
    return axis if same else None


def _places(wanted: Hashes, present: Hashes) -> NDArray[np.int64]:
    order = np.argsort(present, kind="stable")
    return order[np.searchsorted(present, wanted, sorter=order)]


def _agree(sides: Sides, source: str, target: str, axis: int, rows: NDArray[np.int64]) -> bool:
    dtype = sides.want[target].dtype
    have, want = sides.source.read(source, dtype), sides.example.read(target, dtype)
    return have is not None and want is not None and np.array_equal(np.take(have, rows, axis), want)


def as_crop(sides: Sides, taken: Taken) -> Link | None:
    """Say that the first rows were kept, where it is those."""
    if taken.rows != tuple(range(len(taken.rows))):
        return None
    layout = " ".join(_LETTERS[: len(sides.have[taken.source].shape)])
    fields = {"layout": layout, "axes": [_LETTERS[taken.axis]], "mode": "crop"}
    link = Link((Term.of(taken.source),), (Term.of(taken.target),), resize=fields)
    return replace(link, why="the first rows are equal to the bit", evidence=frozenset({"values"}))
