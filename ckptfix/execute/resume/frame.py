"""The containers of the source file around what is new in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ckptfix.formats.base import Frame, Node, TensorRef
from ckptfix.formats.select import Budget, children, is_module, join, mapping_of

_DEEPEST = 50


class NotPlain(Exception):
    """A value that is more than numbers, texts and containers of them."""


def copy_plain(node: Node, budget: Budget, depth: int = 0) -> Frame:
    """Copy a plain value. Raises NotPlain for any other, a tensor among them."""
    if node is None or isinstance(node, str | int | float):
        return node
    mapping = mapping_of(node)
    if depth > _DEEPEST or is_module(node) or (mapping is None and not isinstance(node, list | tuple)):
        raise NotPlain
    if mapping is None:
        budget.spend(node, len(children(node)))
        parts = [copy_plain(child, budget, depth + 1) for _, child in children(node)]
        return tuple(parts) if isinstance(node, tuple) else parts
    budget.spend(node, len(mapping.items))
    if not all(isinstance(key, str | int) for key, _ in mapping.items):
        raise NotPlain
    return {cast("str | int", key): copy_plain(value, budget, depth + 1) for key, value in mapping.items}


class Framing:
    """Copies the containers and plain values of a file, with new parts at some paths.

    `placed` collects the paths of the parts that the file has a place for, `left_out` those of what is neither new nor
    plain: other tensors, and what unpickling would make.
    """

    def __init__(self, parts: Mapping[str, Frame]) -> None:
        self._parts = parts
        self._budget = Budget()
        self.placed: set[str] = set()
        self.left_out: list[str] = []

    def frame(self, node: Node, path: str = "") -> Frame:
        """Give the frame of a value: the part at its path, what leads to further parts, and what is plain."""
        part = self._parts.get(path)
        if path in self._parts:
            self.placed.add(path)
        leads = any(other.startswith(f"{path}." if path else "") for other in self._parts if other != path)
        if not leads:
            return part if path in self._parts else self._plain(node, path)
        mapping = mapping_of(node)
        if mapping is None:
            return [self.frame(child, join(path, name)) for name, child in children(node)]
        around = {
            key: self.frame(value, join(path, str(key)))
            for key, value in mapping.items
            if isinstance(key, str | int) and not (isinstance(value, TensorRef) and path in self._parts)
        }
        kept = {key: value for key, value in around.items() if value is not None or path not in self._parts}
        return {**part, **kept} if isinstance(part, dict) else kept

    def _plain(self, node: Node, path: str) -> Frame:
        """Copy what is plain; what is not becomes None, so that places in lists stay, and is reported."""
        try:
            return copy_plain(node, self._budget)
        except NotPlain:
            self.left_out.append(path)
            return None
