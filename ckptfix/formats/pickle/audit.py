"""Walk what a pickle made, once over each container: list the unknown values with their places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckptfix.errors import LimitExceeded
from ckptfix.formats.base import Node, Opaque, Pairs
from ckptfix.formats.pickle import limits
from ckptfix.formats.pickle.globals import is_known
from ckptfix.formats.pickle.values import Global

DISCARDED = "(discarded)"
"""The place of a value that the pickle makes and then throws away, which an attack does with its own result."""

_STEPS = 32
_NAME = 40
_PLACE = 200
"""Steps of a place, characters of a key in it, and characters of it all, that are shown."""

_Trail = tuple["_Trail", str] | None


def list_opaque(root: Node, created: Iterable[Opaque]) -> tuple[tuple[str, Opaque], ...]:
    """Give the unknown values among `created` with their places under `root`, as `args.optimizer[0]`.

    Raises LimitExceeded where containers lie too deep inside one another.
    """
    unknown = {id(value): value for value in created if not is_known(value)}
    found: dict[int, str] = {}
    for value, trail in walk(root):
        if id(value) in unknown and id(value) not in found:
            found[id(value)] = _place(trail)
    called = {str(value) for value in unknown.values() if not isinstance(value, Global)}
    listed = [(place, unknown[number]) for number, place in found.items()]
    for number, value in unknown.items():
        # The name of a call is a global too; the call already tells of it.
        if number not in found and not (isinstance(value, Global) and str(value) in called):
            listed.append((DISCARDED, value))
    return tuple(listed)


def walk(root: Node) -> Iterator[tuple[Node, _Trail]]:
    """Give every container and record under `root` once, in the file's order, with the way that leads there."""
    # One iterator a level: a long list is not listed again.
    levels: list[Iterator[tuple[Node, _Trail]]] = [iter([(root, None)])]
    seen: set[int] = set()
    while levels:
        value, trail = next(levels[-1], (None, None))
        if value is None:
            levels.pop()
        elif isinstance(value, Pairs | Opaque | list | tuple) and id(value) not in seen:
            if len(levels) > limits.DEPTH:
                raise LimitExceeded(f"values lie more than {limits.DEPTH} containers deep in a pickle")
            seen.add(id(value))
            yield value, trail
            levels.append(_below(value, trail))


def _below(value: Pairs | Opaque | list[Node] | tuple[Node, ...], trail: _Trail) -> Iterator[tuple[Node, _Trail]]:
    return ((child, (trail, step)) for step, child in _children(value) if child is not None)


def _children(value: Pairs | Opaque | list[Node] | tuple[Node, ...]) -> Iterator[tuple[str, Node]]:
    if isinstance(value, Pairs):
        yield from _entries(value.items)
    elif isinstance(value, Opaque):
        yield from ((f"[{index}]", child) for index, child in enumerate(_as_sequence(value.args)))
        yield "", value.state
        yield from ((f"[{index}]", child) for index, child in enumerate(value.items))
        yield from _entries(value.entries)
    else:
        yield from ((f"[{index}]", child) for index, child in enumerate(value) if not _is_leaf(child))


def _entries(pairs: list[tuple[Node, Node]]) -> Iterator[tuple[str, Node]]:
    for key, child in pairs:
        if not _is_leaf(key):
            yield "(key)", key
        if not _is_leaf(child):
            yield f".{_name(key)}", child


def _as_sequence(value: Node) -> list[Node] | tuple[Node, ...]:
    return value if isinstance(value, list | tuple) else (value,)


def _is_leaf(value: Node) -> bool:
    return not isinstance(value, Pairs | Opaque | list | tuple)


def _name(key: Node) -> str:
    if isinstance(key, bytes):
        return key[:_NAME].decode("utf-8", "backslashreplace")
    return str(key)[:_NAME] if isinstance(key, str | int | float | complex | None) else "(key)"


def _place(trail: _Trail) -> str:
    """Join the steps of a way. Of a long one only the end is kept: a shared text can be every key of a deep nest."""
    steps: list[str] = []
    while trail is not None and len(steps) < _STEPS:
        trail, step = trail
        steps.append(step)
    place = "".join(reversed(steps)).removeprefix(".")
    return place if trail is None and len(place) <= _PLACE else f"…{place[-_PLACE:]}"
