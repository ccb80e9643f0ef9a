"""Search a file for its state dicts and choose one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from ckptfix.counts import count
from ckptfix.errors import AmbiguousSource, InvalidCall, NoTensors
from ckptfix.formats.base import Contents, Node, Opaque, TensorRef
from ckptfix.formats.pickle.values import is_of_torch
from ckptfix.formats.select.checkpoint import Candidate, Checkpoint, find_aliases
from ckptfix.formats.select.nesting import (
    Budget,
    Flat,
    children,
    flatten,
    is_module,
    is_optimizer,
    is_tensor,
    join,
    mapping_of,
    names_in,
)
from ckptfix.formats.select.unread import describe_beside, describe_unread, is_unread
from ckptfix.tensors import DType, Manifest

WHOLE = "."
"""Selects the whole file, flattened."""

_SHOWN = 12
"""Candidates that a message names."""


_Trail = tuple["_Trail", str] | None
"""The way to a value, innermost step last: it is joined into a path only where something is found."""


class _Found(Struct, frozen=True):
    """A state dict in the file.

    One of `asides` has no tensors of its own but what a trainer notes: 0-d ones (a loss, a best accuracy), and
    vectors of bytes (the state of a random generator).
    """

    path: str
    flat: Flat
    asides: bool

    @property
    def candidate(self) -> Candidate:
        tensors = self.flat.tensors
        return Candidate(self.path, len(tensors), sum(ref.spec.nbytes for ref in tensors.values()))


def select_state_dict(contents: Contents, select: str | None = None) -> Checkpoint:
    """Choose the state dict at `select`, a dotted path, or the only one there is.

    Raises AmbiguousSource where there are several, NoTensors where there is none, InvalidCall where the path does
    not exist, MalformedFile where two tensors have one key.
    """
    budget = Budget()
    found, optimizers, passed = _search(contents.root, budget)
    candidates = tuple(one.candidate for one in found)
    beside: tuple[str, ...] = ()
    if select is None:
        chosen = _choose(contents, found, budget)
        path, flat = chosen.path, chosen.flat
        beside = describe_beside(path, {key: value for key, value in passed.items() if not _is_inside(key, path)})
    else:
        path = select or WHOLE
        flat = _take(contents, path, candidates, budget)
    return Checkpoint(
        path=contents.path,
        format=contents.format,
        select=path,
        manifest=Manifest({key: ref.spec for key, ref in flat.tensors.items()}),
        tensors=flat.tensors,
        metadata=contents.metadata,
        opaque=contents.opaque,
        candidates=candidates,
        ignored=flat.ignored,
        optimizers=optimizers,
        aliases=find_aliases(flat.tensors),
        notes=(*contents.notes, *describe_unread(flat.unread), *beside),
        stamps=contents.stamps,
    )


def _search(root: Node, budget: Budget) -> tuple[list[_Found], tuple[str, ...], dict[str, Opaque]]:
    """List the state dicts and the optimizers in the file's order, and torch's tensors outside of them that are not
    read. Each value is looked into once.

    A best accuracy or the state of a random generator does not make a state dict of what holds it: such a mapping
    counts only where the file has no other, and is searched like one without tensors.
    """
    found: list[_Found] = []
    optimizers: list[str] = []
    passed: dict[str, Opaque] = {}
    seen: set[int] = set()
    pending: list[tuple[_Trail, Node]] = [(None, root)]
    while pending:
        trail, node = pending.pop()
        if is_tensor(node) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Opaque) and is_of_torch(node.module) and is_unread(node):
            passed[_dotted(trail)] = node
        if is_optimizer(node):
            optimizers.append(_dotted(trail))
            continue
        own = _own_tensors(node)
        if own or is_module(node):
            flat = flatten(node, budget, "mappings")
            asides = not is_module(node) and all(map(_is_aside, own))
            if flat.tensors:
                found.append(_Found(_dotted(trail), flat, asides))
            if not asides:
                continue
        inside = children(node)
        budget.spend(node, len(inside))
        pending.extend(((trail, name), child) for name, child in reversed(inside))
    if any(not one.asides for one in found):
        return [one for one in found if not one.asides], tuple(optimizers), passed
    outermost = [one for one in found if not any(_is_inside(one.path, other.path) for other in found)]
    return outermost, tuple(optimizers), passed


def _dotted(trail: _Trail) -> str:
    steps: list[str] = []
    while trail is not None:
        trail, step = trail
        steps.append(step)
    path = ""
    for step in reversed(steps):
        path = join(path, step)
    return path


def _is_inside(path: str, other: str) -> bool:
    return path != other and (other == "" or path.startswith(f"{other}."))


def _own_tensors(node: Node) -> list[Node]:
    """Give the tensors directly in a mapping with text keys; none for anything else."""
    mapping = mapping_of(node)
    if mapping is None or None in names_in(mapping):
        return []
    return [value for _, value in mapping.items if is_tensor(value)]


def _is_aside(tensor: Node) -> bool:
    if not isinstance(tensor, TensorRef):
        return False
    spec = tensor.spec
    return spec.shape == () or (len(spec.shape) == 1 and spec.dtype is DType.U8)


def _choose(contents: Contents, found: list[_Found], budget: Budget) -> _Found:
    if len(found) == 1:
        return found[0]
    if not found:
        where = str(contents.path)
        if not flatten(contents.root, budget, "everything").tensors:
            raise NoTensors("holds no tensor", where=where)
        raise NoTensors(
            "holds no state dict: no mapping with text keys and a tensor among its values",
            where=where,
            hint="append #. to take every tensor in the file",
        )
    raise AmbiguousSource(
        f"holds {len(found)} state dicts: {_list(one.candidate for one in found)}",
        where=str(contents.path),
        hint=f"say which: {contents.path.name}#{found[0].path}",
    )


def _take(contents: Contents, path: str, candidates: tuple[Candidate, ...], budget: Budget) -> Flat:
    """Flatten the value at a path that the user gave."""
    if path == WHOLE:
        node: Node = contents.root
    else:
        # `models[0]` is how a place is printed, `models.0` how a key is.
        ways = [path, re.sub(r"\[(\d+)\]", r".\1", path)]
        nodes = [node for way in ways for node in resolve_path(contents.root, way)]
        if not nodes:
            from difflib import get_close_matches

            near = get_close_matches(path, [candidate.path for candidate in candidates], cutoff=0.4)
            offered = [candidate for candidate in candidates if candidate.path in near] or candidates
            raise InvalidCall(
                f"has nothing at #{path}",
                where=str(contents.path),
                hint=f"it holds {_list(offered)}" if offered else None,
            )
        node = nodes[0]
    if isinstance(node, TensorRef):
        raise InvalidCall(
            f"#{path} is one tensor, {node.spec}, not a state dict",
            where=str(contents.path),
            hint="leave off the last part of the path" if path != WHOLE else None,
        )
    follow: Literal["mappings", "everything"] = "everything" if path == WHOLE or is_optimizer(node) else "mappings"
    flat = flatten(node, budget, follow)
    if not flat.tensors:
        raise NoTensors(
            f"there is no tensor under #{path}",
            where=str(contents.path),
            hint=f"it holds {_list(candidates)}" if candidates else None,
        )
    return flat


def resolve_path(root: Node, path: str) -> list[Node]:
    """Give the values at a dotted path, '' being the root. Keys may have dots themselves: each split is tried."""
    if not path:
        return [root]
    pending = [(root, path)]
    found: list[Node] = []
    while pending:
        node, rest = pending.pop()
        for name, child in children(node):
            if rest == name:
                found.append(child)
            elif rest.startswith(f"{name}."):
                pending.append((child, rest[len(name) + 1 :]))
    return found


def _list(candidates: Iterable[Candidate]) -> str:
    shown = [
        f"#{one.path or WHOLE} ({count(one.tensors, 'tensor')}, {count(one.nbytes, 'byte')})" for one in candidates
    ]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
