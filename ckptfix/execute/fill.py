"""Put every output in its place in a file: what is moved by several threads, what is computed by this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from msgspec import Struct, field

from ckptfix.execute.atomic import NewFile
from ckptfix.execute.moves import Move
from ckptfix.execute.transfer import BATCH, Meter, Run, Transfer, batches, runs_of
from ckptfix.execute.values import Values
from ckptfix.execute.workers import Workers
from ckptfix.expr import Expr
from ckptfix.formats.base import Reader

_COMPUTING = threading.Lock()
"""Held while a tensor is computed: torch draws from one generator for all threads, and uses all processors itself."""
_FEW = 8 << 20
"""Bytes that are not worth a thread."""


class Output(Struct, frozen=True, gc=False):
    """One tensor to write: how it is made, where it goes, and what is asked for of its bytes."""

    key: str
    expr: Expr
    move: Move | None
    """How its elements are moved; None where they are computed."""
    offset: int
    meter: Meter


class Filled(Struct):
    """What came of it. `before` are the digests of what was cast, by output key; `cloned` counts shared bytes."""

    before: dict[str, str] = field(default_factory=dict)
    cloned: int = 0


def fill(
    file: NewFile,
    nbytes: int,
    outputs: Sequence[Output],
    values: Values,
    reader: Reader,
    *,
    threads: int,
    progress: Callable[[int], None],
) -> Filled:
    """Write all outputs into a file of a length, with so many threads. `progress` is told how many bytes are written.

    Raises OSError, NonFinite, and what reading the source and computing raise.
    """
    filled = Filled()
    meters = {output.key: output.meter for output in outputs}
    runs: list[list[Run]] = []
    poured: list[Output] = []
    computed: list[Output] = []
    for output in outputs:
        ranges = None if output.move is None else output.move.ranges
        if ranges is not None:
            runs.append(runs_of(output.key, ranges, output.offset))
        else:
            (computed if output.move is None else poured).append(output)
    total = sum(output.expr.spec.nbytes for output in outputs)
    tally = _Tally(progress)
    transfer = Transfer(reader, file, meters, tally.add)
    copies = list(batches(runs))
    if all(meter.is_idle for meter in meters.values()):
        copies, filled.cloned = transfer.clone(copies)
    file.allocate(nbytes)
    pour = partial(_pour, transfer, values, filled)
    jobs = [partial(transfer.copy, batch) for batch in copies] + [partial(pour, group) for group in _groups(poured)]
    with Workers(jobs, 0 if total < _FEW else threads) as workers:
        tally.check = workers.check
        for output in computed:
            with _COMPUTING:
                transfer.pour(output.key, output.offset, values.computed(output.key, output.expr))
    return filled


def _pour(transfer: Transfer, values: Values, filled: Filled, outputs: Sequence[Output]) -> None:
    """Write outputs that are gathered, decoded or cast."""
    for output in outputs:
        assert output.move is not None
        if output.move.casts and output.meter.has_digest:
            before = Meter(output.move.ref.spec.nbytes, digest=True, checksum=False)
            chunks = values.moved(output.key, output.expr, output.move, before.watch)
            transfer.pour(output.key, output.offset, chunks)
            filled.before[output.key] = before.digest
        else:
            transfer.pour(output.key, output.offset, values.moved(output.key, output.expr, output.move))


def _groups(outputs: Iterable[Output]) -> Iterator[list[Output]]:
    """Share outputs out in the order of the source."""
    group: list[Output] = []
    nbytes = 0
    for output in sorted(outputs, key=lambda output: (output.move and output.move.place) or ("", 0)):
        group.append(output)
        nbytes += output.expr.spec.nbytes
        if nbytes >= BATCH:
            yield group
            group, nbytes = [], 0
    if group:
        yield group


class _Tally:
    """Adds up what several threads have written; each is told to end where the others do."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0
        self.check: Callable[[], None] = lambda: None

    def add(self, nbytes: int) -> None:
        self.check()
        with self._lock:
            self._done += nbytes
            self._progress(self._done)
