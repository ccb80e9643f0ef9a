"""Execute a plan into several files that are one output.

Every file is written whole under a name of its own that no loader looks for; then all get their names, and last of all
the file that names them. Whatever an older output left in the way goes first, its own index before all: at no moment
can a loader read files of two outputs as one. What a killed run finished is taken up by the next one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace as replaced
from functools import cache
from pathlib import Path

from ckptfix._version import __version__
from ckptfix.digest import hash_chunks, hash_document, hash_text
from ckptfix.errors import CkptfixError
from ckptfix.execute.atomic import new_file, refuse_existing, sync_folder, write_error
from ckptfix.execute.destination import Destination, Part, make_folder, write_index
from ckptfix.execute.finite import Count
from ckptfix.execute.receipt import RECEIPT_KEY, Receipt, read_receipt
from ckptfix.execute.resume import Companions
from ckptfix.execute.space import refuse_full
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.write import Progress, Written, write
from ckptfix.expr import Compute, Expr, Initial, inputs
from ckptfix.formats import WHOLE, Checkpoint, Reader, open_checkpoint, open_contents
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
    with _folder(destination), new_file(destination.last, replace=replace) as last:
        finished = _Finished(destination, parts, _digest(plan, checkpoint, target, parts))
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
    """Write an output of one file, and remove the shards of an older one beside it, which its loaders ignore."""
    destination.refuse_taken(replace=replace)
    with _folder(destination):
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
        for old in destination.replaced():
            if old != destination.path:
                with contextlib.suppress(OSError):
                    old.unlink()
    return written


class _Finished:
    """The files that are whole, under names that no loader looks for, until the whole output is.

    The names follow from the output and from the digest of all that the files are made of: what an interrupted run
    left is used again by the same run, and by no other. Only the run that holds the lock of the output touches them.
    """

    def __init__(self, destination: Destination, parts: Sequence[Part], digest: str) -> None:
        self._destination = destination
        self._folder = destination.last.parent
        self._output = f".ckptfix-{hash_text(destination.last.name)[:12]}-"
        self._paths = {
            part.name: self._folder / f"{self._output}{digest[:16]}-{number:05d}{Path(part.name).suffix}"
            for number, part in enumerate(parts)
        }

    def path(self, part: Part) -> Path:
        """Give the name of a file until the output is whole."""
        return self._paths[part.name]

    def metadata(self) -> dict[str, str]:
        """Give the metadata that the files have, as a reader of them all joins it."""
        joined: dict[str, str] = {}
        for path in self._paths.values():
            joined = {**open_contents(path).metadata, **joined}
        joined.pop(RECEIPT_KEY, None)
        return joined

    def discard(self) -> None:
        """Remove the files; those that the output has by now have another name too."""
        for path in self._paths.values():
            with contextlib.suppress(OSError):
                path.unlink()

    def discard_others(self) -> None:
        """Remove what other runs to the same output have left, since the lock says that they have ended."""
        for path in self._folder.glob(f"{self._output}*"):
            if path not in self._paths.values():
                with contextlib.suppress(OSError):
                    path.unlink()

    def refuse_taken(self, *, replace: bool) -> None:
        """Raise OutputExists where a file's name is taken, but by what an interrupted run had put there."""
        for name, path in self._paths.items():
            final = self._folder / name
            if not (_same(final, path) or _is_missing(final)):
                refuse_existing(final, replace=replace)

    def refuse_full(self, nbytes: int) -> None:
        """Raise WriteFailed where the folder has no room for that many bytes, less those that are there already."""
        there = sum(path.stat().st_size for path in self._paths.values() if path.is_file())
        try:
            refuse_full(self._folder, nbytes - there)
        except OSError as error:
            raise write_error(self._destination.last, error) from error

    def take_up(self, part: Part, plan: Plan) -> Written | None:
        """Give what an earlier run has written of a plan; None where it has not, or where a byte of it is not so.

        What depends on code that is not of ckptfix is always made again: the code may have changed.
        """
        path = self.path(part)
        specs = {key: row.expr.spec for key, row in plan.outputs.items()}
        if _is_missing(path) or any(map(_runs_code, (row.expr for row in plan.outputs.values()))):
            return None
        try:
            checkpoint = open_checkpoint(path, select=WHOLE)
            receipt = read_receipt(checkpoint)
            if receipt is None or dict(checkpoint.manifest) != specs or receipt.entries.keys() != specs.keys():
                return None
            with Reader() as reader:
                digests = {key: hash_chunks(reader.chunks(ref)) for key, ref in checkpoint.tensors.items()}
        except CkptfixError:
            return None
        sound = all(receipt.entries[key].blake3 == digest for key, digest in digests.items())
        sealed = receipt.seal(checkpoint.manifest, checkpoint.metadata) == receipt
        return Written(receipt, Count(), Count()) if sound and sealed else None

    def commit(self, *, replace: bool) -> None:
        """Give the files their names; of an older output, what is read first goes first. Raises OutputExists."""
        self.refuse_taken(replace=replace)
        try:
            if replace:
                for old in self._destination.replaced():
                    if not (old.name in self._paths and _same(old, self._paths[old.name])):
                        old.unlink(missing_ok=True)
                    if old == self._destination.last:
                        sync_folder(self._folder)
            for name, path in self._paths.items():
                final = self._folder / name
                if not _same(final, path):
                    final.unlink(missing_ok=True)
                    _link(path, final)
            sync_folder(self._folder)
        except OSError as error:
            raise write_error(self._destination.last, error) from error


def _last_file(
    destination: Destination,
    plan: Plan,
    parts: Sequence[Part],
    finished: _Finished,
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


def _runs_code(expr: Expr) -> bool:
    return isinstance(expr, Initial | Compute) or any(map(_runs_code, inputs(expr)))


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _link(path: Path, final: Path) -> None:
    """Give a file a second name, so that a run that is killed now leaves the first; else rename it."""
    try:
        final.hardlink_to(path)
    except OSError:  # a file system without links, such as FAT
        path.rename(final)


def _same(left: Path, right: Path) -> bool:
    try:
        return os.path.samestat(left.lstat(), right.lstat())
    except OSError:
        return False


def _is_missing(path: Path) -> bool:
    return not os.path.lexists(path)


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
