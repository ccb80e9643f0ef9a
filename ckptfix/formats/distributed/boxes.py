"""Boxes of a tensor: a chunk of a distributed checkpoint is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.tensors import Shape

MAX_COMPARISONS = 300_000
"""Pairs of boxes that are compared. Tensors that are cut along one axis need as many as they have boxes."""


class Box(NamedTuple):
    """The elements from `offsets` on, `shape` of them along each axis."""

    offsets: tuple[int, ...]
    shape: Shape

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def stop(self, axis: int) -> int:
        """The place after the last along an axis."""
        return self.offsets[axis] + self.shape[axis]

    def meets(self, other: Box) -> bool:
        """Whether an element is in both."""
        return all(
            self.offsets[axis] < other.stop(axis) and other.offsets[axis] < self.stop(axis)
            for axis in range(len(self.shape))
        )


def check_cover(shape: Shape, boxes: Sequence[Box]) -> None:
    """Check that boxes with elements cover a tensor, each element once.

    Raises MalformedFile where one leaves the tensor, where two meet, or where elements are missing.
    """
    for box in boxes:
        if len(box.offsets) != len(shape) or len(box.shape) != len(shape):
            raise MalformedFile(f"a chunk has {len(box.shape)} axes, its tensor {len(shape)}")
        if any(box.stop(axis) > extent for axis, extent in enumerate(shape)):
            raise MalformedFile(f"a chunk of {list(box.shape)} at {list(box.offsets)} leaves its tensor {list(shape)}")
    covered = sum(box.numel for box in boxes)
    if covered != math.prod(shape):
        raise MalformedFile(f"the chunks hold {covered} elements, the tensor {math.prod(shape)}")
    if not shape:
        return
    # They are swept along the axis that most of them are cut along, so that few are open at once.
    axis = max(range(len(shape)), key=lambda axis: len({box.offsets[axis] for box in boxes}))
    ahead: list[Box] = []
    compared = 0
    for box in sorted(boxes, key=lambda box: box.offsets[axis]):
        ahead = [other for other in ahead if other.stop(axis) > box.offsets[axis]]
        compared += len(ahead) + 1
        if compared > MAX_COMPARISONS:
            raise LimitExceeded(f"a tensor is saved in {len(boxes)} chunks that lie in one another's way")
        if any(box.meets(other) for other in ahead):
            raise MalformedFile(f"two chunks hold the same elements, near {list(box.offsets)}")
        ahead.append(box)
