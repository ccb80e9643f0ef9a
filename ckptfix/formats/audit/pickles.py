"""Run pickles as data, one after another, and keep what they name also where they are cut short or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from ckptfix.errors import LimitExceeded, MalformedFile, RefusedContent
from ckptfix.formats.base import Node, Opaque, Pairs, Storage
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.calls import WITH_ARRAYS
from ckptfix.formats.pickle.globals import Constructor, is_known
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.storages import StorageTable
from ckptfix.formats.pickle.stream import Stream

_EACH = 4 << 10
"""What a pickle costs beside its values: the machine that runs it."""


class Trace(Struct, frozen=True):
    """What one pickle names, each with its place, what it cost, and the error that ended it before its STOP."""

    opaque: tuple[tuple[str, Opaque], ...]
    spent: int
    fault: RefusedContent | None


def trace_pickles(stream: Stream, budget: int) -> Iterator[Trace]:
    """Run one pickle after another until one is wrong or the stream ends. All together may cost `budget`."""
    while stream.remaining and budget > 0:
        table = StorageTable(lambda found: Storage(Path(), 0, found.nbytes, found.nbytes))
        machine = Machine(stream, _attempt(table.find), _CONSTRUCTORS, budget=budget)
        fault: RefusedContent | None = None
        try:
            root = machine.load()
        except RefusedContent as error:
            fault, root = error, _unfinished(machine)
        spent = machine.spent + _EACH
        budget -= spent
        yield Trace(_list(root, machine), spent, fault)
        if fault is not None:
            return


def _list(root: Node, machine: Machine) -> tuple[tuple[str, Opaque], ...]:
    if all(map(is_known, machine.created)):
        return ()
    try:
        return list_opaque(root, machine.created)
    except LimitExceeded:  # too deep to be walked: the names all the same
        return list_opaque(None, machine.created)


def _attempt(make: Callable[..., Node]) -> Callable[..., Node]:
    """Give the value that `make` gives, or None where it finds a contradiction: what follows is still of interest."""

    def attempt(given: Node) -> Node:
        try:
            return make(given)
        except MalformedFile:
            return None

    return attempt


_CONSTRUCTORS: dict[tuple[str, str], Constructor] = {name: _attempt(make) for name, make in WITH_ARRAYS.items()}


def _unfinished(machine: Machine) -> Node:
    """Close every container that the pickle has begun, so that what lies in them has its place."""
    inner = machine.stack
    for below in reversed(machine.marks):
        if below and isinstance(below[-1], Pairs):
            pairs = list(zip(inner[::2], inner[1::2], strict=False))
            inner = [*below[:-1], Pairs([*below[-1].items, *pairs])]
        else:
            inner = [*below, inner]
    return inner[0] if len(inner) == 1 else inner
