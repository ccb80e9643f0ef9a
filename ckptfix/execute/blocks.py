"""Change the part of a tensor that a resize works on; of torch's tensors, or of views of what is not read."""

from __future__ import annotations

from collections.abc import Callable

from ckptfix.execute.arrange import Concatenate, T
from ckptfix.expr import Block
from ckptfix.tensors import Shape


def on_block(tensor: T, block: Block, change: Callable[[T], T], concatenate: Concatenate[T]) -> T:
    """Change one part of a tensor along `block.dim`; unfold it before, fold it after."""
    if not block.inner and not block.shape:
        return change(tensor)
    length = block.stop - block.start
    changed = change(tensor.narrow(block.dim, block.start, length).reshape(block.inner)).reshape(block.shape)
    if length == tensor.shape[block.dim]:
        return changed
    before = tensor.narrow(block.dim, 0, block.start)
    after = tensor.narrow(block.dim, block.stop, tensor.shape[block.dim] - block.stop)
    return concatenate([before, changed, after], block.dim)


def crop(part: T, block: Block) -> T:
    """Keep the leading rows."""
    for axis, size in zip(block.axes, block.sizes, strict=True):
        part = part.narrow(axis, 0, size)
    return part


def pad(part: T, block: Block, rows: Callable[[T, int, Shape], T], concatenate: Concatenate[T]) -> T:
    """Add rows after the present ones; `rows` makes them, for an axis, of a shape."""
    for axis, size in zip(block.axes, block.sizes, strict=True):
        shape = (*part.shape[:axis], size - part.shape[axis], *part.shape[axis + 1 :])
        part = concatenate([part, rows(part, axis, shape)], axis)
    return part
