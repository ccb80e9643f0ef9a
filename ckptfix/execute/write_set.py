"""Execute a plan into several files that are one output.

Every file is written whole under a name of its own that no loader looks for; then all get their names, and last of all
the file that names them. Whatever an older output left in the way goes first, its own index before all: at no moment
can a loader read files of two outputs as one. What a killed run finished is taken up by the next one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING

from msgspec.structs import replace as replaced

from ckptfix._version import __version__
from ckptfix.counts import count
from ckptfix.digest import hash_document, hash_text
from ckptfix.execute.atomic import hold, unpublished_file
from ckptfix.execute.destination import Destination, Part, make_folder, write_index
from ckptfix.execute.finished import Finished, discard_unfinished
from ckptfix.execute.finite import Count
from ckptfix.execute.receipt import Receipt
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.workers import Workers
from ckptfix.execute.write import DEFAULTS, Options, Progress, Written, write
from ckptfix.formats import Checkpoint
from ckptfix.formats.base import File
from ckptfix.planning import Plan
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from ckptfix.execute.resume import Companions


def write_set(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    destination: Destination,
    parts: Sequence[Part],
    *,
    replace: bool = False,
    options: Options = DEFAULTS,
    progress: Progress = lambda done, total: None,
) -> tuple[Written, int]:
    """Write the rows of the plan that fit the target into the files of `parts`, and the file that names these.

    Gives also how many of the files an interrupted run had finished. Raises what `write` raises, OutputExists where one
    of the names is taken, ReadFailed where the source changes; KeyboardInterrupt says what waits for the next run.
    """
    destination.refuse_taken(replace=replace)
    if target.build is not None:
        # Each file would build the target anew for what it fills.
        target = replaced(target, build=cache(target.build))
    with _folder(destination), unpublished_file(destination.last, replace=replace) as last, _held(destination):
        finished = Finished(destination, parts, _digest(plan, checkpoint, target, parts))
        finished.discard_others()
        destination.refuse_taken(replace=replace)
        finished.refuse_full(_nbytes(plan))
        try:
            done, taken_up = _write_parts(plan, checkpoint, target, destination, parts, finished, options, progress)
            receipt = _join(plan, [one.receipt for one in done], finished.metadata())
            _check_unchanged(checkpoint)
            files = {part.name: hash_text(one.receipt.to_text()) for part, one in zip(parts, done, strict=True)}
            last.write(0, _last_file(destination, plan, parts, finished, receipt.to_text(), files))
            finished.commit(replace=replace)
            last.publish(replace=replace, sync=options.sync)
        except (Exception, KeyboardInterrupt) as stop:
            # An error is the end of it; a run that is interrupted or killed leaves what it has finished.
            if last.is_published():
                finished.discard()
            elif isinstance(stop, KeyboardInterrupt):
                waiting = sum(finished.waits(part, plan.only(part.keys)) for part in parts)
                raise KeyboardInterrupt(*_say_waiting(waiting, len(parts))) from stop
            else:
                finished.withdraw()
            raise
        finished.discard()
        if replace:
            finished.discard_older()
    whole = Written(receipt, sum((one.read for one in done), Count()), sum((one.made for one in done), Count()))
    return whole, taken_up


def _write_parts(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    destination: Destination,
    parts: Sequence[Part],
    finished: Finished,
    options: Options,
    progress: Progress,
) -> tuple[list[Written], int]:
    """Write the files that hold tensors, several at a time; give also how many of them were there."""
    total = _nbytes(plan)
    written = dict.fromkeys(parts, 0)
    lock = threading.Lock()
    done: dict[Part, Written] = {}
    taken_up: list[Part] = []

    def report(part: Part, nbytes: int) -> None:
        workers.check()
        with lock:
            written[part] = nbytes
            progress(sum(written.values()), total)

    def make(part: Part) -> None:
        only = plan.only(part.keys)
        one = finished.take_up(part, only)
        if one is None:
            form, path = destination.format, finished.path(part)
            inner = options if len(parts) == 1 else replaced(options, threads=0)
            tell: Progress = lambda nbytes, _: report(part, nbytes)  # noqa: E731
            one = write(only, checkpoint, target, path, form=form, replace=True, options=inner, progress=tell)
        else:
            taken_up.append(part)
        done[part] = one
        report(part, _nbytes(only))

    workers = Workers([partial(make, part) for part in parts], options.threads if len(parts) > 1 else 0)
    workers.run()
    return [done[part] for part in parts], len(taken_up)


def write_alone(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    destination: Destination,
    *,
    replace: bool,
    options: Options,
    companions: Companions | None,
    progress: Progress,
) -> Written:
    """Write an output of one file. What it replaces goes, shards beside it too: no loader of the file reads these."""
    destination.refuse_taken(replace=replace)
    with _folder(destination), _index_held(destination):
        written = write(
            plan,
            checkpoint,
            target,
            destination.path,
            replace=replace,
            options=options,
            companions=companions,
            progress=progress,
        )
        if destination.kind == "shards":
            discard_unfinished(destination)
            for old in destination.replaced() if replace else ():
                if old != destination.path:
                    with contextlib.suppress(OSError):
                        old.unlink()
    return written


def _last_file(
    destination: Destination,
    plan: Plan,
    parts: Sequence[Part],
    finished: Finished,
    receipt: str,
    files: Mapping[str, str],
) -> bytes:
    """Write the file that names the others."""
    specs = {key: row.expr.spec for key, row in plan.outputs.items()}
    if destination.kind == "shards":
        return write_index(specs, parts, receipt, files)
    from ckptfix.formats.distributed.emit import emit_metadata
    from ckptfix.formats.distributed_file import items_of

    items = {key: item for part in parts for key, item in items_of(finished.path(part), part.name).items()}
    return emit_metadata(specs, items, receipt, files)


def _join(plan: Plan, receipts: Sequence[Receipt], metadata: Mapping[str, str]) -> Receipt:
    """Make the receipt of all files. Raises TiedConflict; its source digest is over those of the files."""
    entries = {key: entry for receipt in receipts for key, entry in receipt.entries.items()}
    refuse_conflicts(plan, lambda key: entries[key].blake3)
    rows = plan.outputs
    source = hash_document([receipt.source for receipt in receipts])
    dtype = None if plan.dtype is None else str(plan.dtype)
    whole = Receipt(__version__, plan.recipe.digest, source, dtype, {key: entries[key] for key in rows})
    return whole.seal({key: row.expr.spec for key, row in rows.items()}, metadata)


def _digest(plan: Plan, checkpoint: Checkpoint, target: Target, parts: Sequence[Part]) -> str:
    """Hash all that the bytes of the files follow from."""
    rows = {key: [row.expr.spec.to_json(), row.rule, str(row.expr)] for key, row in plan.outputs.items()}
    names = [[part.name, *part.keys] for part in parts]
    words = [__version__, plan.recipe.digest, str(sorted(plan.values.items())), str(plan.dtype), target.text]
    stamps = sorted([os.fsencode(path.resolve()).hex(), *stamp] for path, stamp in checkpoint.stamps.items())
    return hash_document([words, stamps, names, rows])


def _check_unchanged(checkpoint: Checkpoint) -> None:
    """Raise ReadFailed where a file of the source is not as it was when the source was opened."""
    for path, stamp in checkpoint.stamps.items():
        with File(path) as file:
            file.check_stamp(stamp)


def _nbytes(plan: Plan) -> int:
    return sum(row.expr.spec.nbytes for row in plan.outputs.values())


def _say_waiting(waiting: int, total: int) -> tuple[str, ...]:
    """Say what an interrupted run leaves, if anything."""
    if not waiting:
        return ()
    again = "run the same command again, and it goes on from there"
    return (f"{waiting} of {count(total, 'file')} {'is' if waiting == 1 else 'are'} finished and kept: {again}",)


def _held(destination: Destination) -> AbstractContextManager[None]:
    """Keep other runs out to the end: once the last file has its name, its own lock is free.

    Of shards it is the namesake's lock, since loaders take one file of that name for the whole.
    """
    return hold(destination.path if destination.kind == "shards" else destination.path.with_name("__0_0.distcp"))


def _index_held(destination: Destination) -> AbstractContextManager[None]:
    """Keep other runs from writing shards in the place of one file."""
    return hold(destination.last) if destination.kind == "shards" else nullcontext()


@contextmanager
def _folder(destination: Destination) -> Iterator[None]:
    """Make the folder that the output is; remove it again where nothing came of it."""
    made = make_folder(destination)
    try:
        yield
    except BaseException:
        if made and destination.folder is not None:
            with contextlib.suppress(OSError):
                destination.folder.rmdir()
        raise
