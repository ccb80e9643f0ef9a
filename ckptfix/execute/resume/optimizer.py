"""The state of an optimizer in a file: its groups of parameters, and what it keeps of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from msgspec import Struct

from ckptfix.errors import MalformedFile
from ckptfix.formats.base import Node, TensorRef
from ckptfix.formats.select import mapping_of, name_of
from ckptfix.tensors import Shape

ParameterId = int | str


class Group(Struct, frozen=True):
    """A group of parameters: their ids in order, their names where the file has them, and the options."""

    ids: tuple[ParameterId, ...]
    names: tuple[str, ...] | None
    options: Mapping[str, Node]


class OptimizerState(Struct, frozen=True):
    """What `Optimizer.state_dict` gives: `entries` maps a parameter's id to what is kept of it, by name."""

    path: str
    groups: tuple[Group, ...]
    entries: Mapping[ParameterId, Mapping[str, Node]]

    def shape_of(self, number: ParameterId) -> Shape | None:
        """Give the shape of a parameter: that of all its moments. None where they are factored, or none is kept."""
        kept = {value.spec.shape for value in self.entries.get(number, {}).values() if isinstance(value, TensorRef)}
        shapes = kept - {(), (1,)} or kept - {()}
        return shapes.pop() if len(shapes) == 1 else None


def read_optimizer(node: Node, path: str) -> OptimizerState:
    """Read the groups and the entries. Raises MalformedFile where they are not laid out as torch's optimizers do."""
    outer = _mapping(node, path)
    groups = outer["param_groups"]
    if not isinstance(groups, list | tuple):
        raise MalformedFile(f"{path}.param_groups is no list")
    state = mapping_of(outer["state"])
    if state is None:
        raise MalformedFile(f"{path}.state is no mapping")
    entries = {
        _id(key, path): _mapping(value, f"{path}.state") for key, value in state.items if mapping_of(value) is not None
    }
    return OptimizerState(path, tuple(_read_group(group, path) for group in groups), entries)


def _read_group(node: Node, path: str) -> Group:
    options = _mapping(node, f"{path}.param_groups")
    ids = options.pop("params", None)
    if not isinstance(ids, list | tuple):
        raise MalformedFile(f"a group of {path} has no list of params")
    names = options.pop("param_names", None)
    known = isinstance(names, list | tuple) and len(names) == len(ids) and all(isinstance(name, str) for name in names)
    return Group(
        tuple(_id(number, path) for number in ids), tuple(cast("list[str]", names)) if known else None, options
    )


def _mapping(node: Node, place: str) -> dict[str, Node]:
    mapping = mapping_of(node)
    if mapping is None:
        raise MalformedFile(f"{place} holds something other than mappings")
    return {name: value for key, value in mapping.items if (name := name_of(key)) is not None}


def _id(node: Node, path: str) -> ParameterId:
    if not isinstance(node, int | str):
        raise MalformedFile(f"{path} numbers a parameter with something other than an integer or a name")
    return node
