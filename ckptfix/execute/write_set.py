"""Execute a plan into several files that are one output.

Every file is written whole under a name of its own that no loader looks for; then all get their names, and last of all
the file that names them. Whatever an older output left in the way goes first, its own index before all: at no moment
can a loader read files of two outputs as one. What a killed run finished is taken up by the next one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace as replaced
from functools import cache

from ckptfix._version import __version__
from ckptfix.digest import hash_document, hash_text
from ckptfix.execute.atomic import hold, new_file
from ckptfix.execute.destination import Destination, Part, make_folder, write_index
from ckptfix.execute.finished import Finished, discard_parts
from ckptfix.execute.finite import Count
from ckptfix.execute.receipt import Receipt
from ckptfix.execute.resume import Companions
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.write import Progress, Written, write
from ckptfix.formats import Checkpoint
from ckptfix.formats.base import File
from ckptfix.formats.distributed.emit import emit_metadata
from ckptfix.formats.distributed_file import items_of
from ckptfix.planning import Plan
from ckptfix.targets import Target


def write_set(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    destination: Destination,
    parts: Sequence[Part],
    *,
    replace: bool = False,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the rows of the plan that fit the target into the files of `parts`, and the file that names these.

    Raises what `write` raises, OutputExists where one of the names is taken, ReadFailed where the source changes.
    """
    destination.refuse_taken(replace=replace)
    if target.build is not None:
        # Each file would build the target anew for what it fills.
        target = replaced(target, build=cache(target.build))
    total = sum(row.expr.spec.nbytes for row in plan.outputs.values())
    with _folder(destination), new_file(destination.last, replace=replace) as last, _namesake_held(destination):
        finished = Finished(destination, parts, _digest(plan, checkpoint, target, parts))
        finished.discard_others()
        finished.refuse_taken(replace=replace)
        finished.refuse_full(total)
        done: list[Written] = []
        written = 0
        try:
            for part in parts:
                only = plan.only(part.keys)
                report = _shifted(progress, written, total)
                one = finished.take_up(part, only)
                if one is None:
                    path = finished.path(part)
                    form = destination.format
                    one = write(only, checkpoint, target, path, form=form, replace=True, progress=report)
                done.append(one)
                written += sum(row.expr.spec.nbytes for row in only.outputs.values())
                progress(written, total)
            receipt = _join(plan, [one.receipt for one in done], finished.metadata())
            _check_unchanged(checkpoint)
            files = {part.name: hash_text(one.receipt.to_text()) for part, one in zip(parts, done, strict=True)}
            data = _last_file(destination, plan, parts, finished, receipt.to_text(), files)
            finished.commit(replace=replace)
            last.write(0, data)
        except Exception:
            # An error is the end of it; a run that is interrupted or killed leaves what it has finished.
            finished.discard()
            raise
    finished.discard()
    return Written(receipt, sum((one.read for one in done), Count()), sum((one.made for one in done), Count()))


def write_alone(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    destination: Destination,
    *,
    replace: bool,
    digests: bool,
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
            digests=digests,
            companions=companions,
            progress=progress,
        )
        if destination.kind == "shards":
            discard_parts(destination)
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


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _namesake_held(destination: Destination) -> AbstractContextManager[None]:
    """Keep other runs from writing one file in the place of shards: loaders take it for the whole."""
    return hold(destination.path) if destination.kind == "shards" else nullcontext()


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
