"""The files of an output that are whole before all are, and how they get their names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ckptfix.digest import hash_chunks, hash_text
from ckptfix.errors import CkptfixError
from ckptfix.execute.atomic import refuse_existing, sync_folder, write_error
from ckptfix.execute.destination import Destination, Part
from ckptfix.execute.finite import Count
from ckptfix.execute.receipt import RECEIPT_KEY, read_receipt
from ckptfix.execute.space import refuse_full
from ckptfix.execute.write import Written
from ckptfix.expr import Compute, Expr, Initial, inputs
from ckptfix.formats import WHOLE, Reader, open_checkpoint, open_contents
from ckptfix.planning import Plan


class Finished:
    """The files that are whole, under names that no loader looks for, until the whole output is.

    The names follow from the output and from the digest of all that the files are made of: what an interrupted run
    left is used again by the same run, and by no other. Only the run that holds the lock of the output touches them.
    """

    def __init__(self, destination: Destination, parts: Sequence[Part], digest: str) -> None:
        self._destination = destination
        self._folder = destination.last.parent
        self._paths = {
            part.name: self._folder / f"{_prefix(destination)}{digest[:16]}-{number:05d}{Path(part.name).suffix}"
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
        discard_parts(self._destination, keep=self._paths.values())

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


def discard_parts(destination: Destination, keep: Collection[Path] = ()) -> None:
    """Remove what interrupted runs have finished of a set. Only for who holds the lock of the output."""
    for path in destination.last.parent.glob(f"{_prefix(destination)}*"):
        if path not in keep:
            with contextlib.suppress(OSError):
                path.unlink()


def _prefix(destination: Destination) -> str:
    """Give what the names of an output's finished files begin with."""
    return f".ckptfix-{hash_text(destination.last.name)[:12]}-"


def _runs_code(expr: Expr) -> bool:
    return isinstance(expr, Initial | Compute) or any(map(_runs_code, inputs(expr)))


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
