"""The files of an output that are whole before all are, and how they get their names."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ckptfix.digest import hash_chunks
from ckptfix.errors import CkptfixError
from ckptfix.execute.atomic import refuse_existing, sync_folder
from ckptfix.execute.destination import Destination, Part, identity
from ckptfix.execute.finite import Count
from ckptfix.execute.receipt import RECEIPT_KEY, read_receipt
from ckptfix.execute.rename import rename_new
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
            part.name: self._folder / f"{destination.hidden}{digest[:16]}-{number:05d}{Path(part.name).suffix}"
            for number, part in enumerate(parts)
        }
        self._given: list[Path] = []

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
        """Remove the hidden names; those of the output stay."""
        _remove(self._paths.values())

    def withdraw(self) -> None:
        """Remove the files under all the names that they have got."""
        _remove(self._given)
        discard_unfinished(self._destination)

    def discard_others(self) -> None:
        """Remove what other runs to the same output have left, since the lock says that they have ended."""
        discard_unfinished(self._destination, keep=self._paths.values())

    def discard_older(self) -> None:
        """Remove the files of an older output that lie beside this one."""
        new = {self._destination.last, *(self._folder / name for name in self._paths)}
        _remove(path for path in self._destination.replaced() if path not in new)
        sync_folder(self._folder)

    def refuse_full(self, nbytes: int) -> None:
        """Raise OSError where the folder has no room for that many bytes, less those that are there already."""
        there = sum(path.stat().st_size for path in self._paths.values() if path.is_file())
        refuse_full(self._folder, nbytes - there)

    def waits(self, part: Part, plan: Plan) -> bool:
        """Tell whether a file is whole, and the next run takes it up."""
        return self.path(part).exists() and not _needs_code(plan)

    def take_up(self, part: Part, plan: Plan) -> Written | None:
        """Give what an earlier run has written of a plan; None where it has not, or where a byte of it is not so.

        What depends on code that is not of ckptfix is always made again: the code may have changed.
        """
        path = self.path(part)
        specs = {key: row.expr.spec for key, row in plan.outputs.items()}
        if not self.waits(part, plan):
            return None
        try:
            checkpoint = open_checkpoint(path, select=WHOLE)
            receipt = read_receipt(checkpoint)
            if receipt is None or dict(checkpoint.manifest) != specs or receipt.entries.keys() != specs.keys():
                return None
            with Reader() as reader:
                digests = {key: hash_chunks(reader.passing(ref)) for key, ref in checkpoint.tensors.items()}
        except CkptfixError:
            return None
        sound = all(receipt.entries[key].blake3 == digest for key, digest in digests.items())
        sealed = receipt.seal(checkpoint.manifest, checkpoint.metadata) == receipt
        return Written(receipt, Count(), Count()) if sound and sealed else None

    def commit(self, *, replace: bool) -> None:
        """Give the files their names. Raises OutputExists, or OSError where the system refuses.

        Where an older output has one of these names, all of it goes first, and of it what is read first.
        """
        self._destination.refuse_taken(replace=replace)
        named = self._destination.named()
        older = [path for path in self._destination.replaced() if path not in named and identity(path)]
        if any(path.name in self._paths for path in older):
            for path in older:
                path.unlink()
                if path == self._destination.last:
                    sync_folder(self._folder)
        for name, path in self._paths.items():
            final = self._folder / name
            if final not in named:
                _link(path, final)
                self._given.append(final)
        sync_folder(self._folder)


def discard_unfinished(destination: Destination, keep: Collection[Path] = ()) -> None:
    """Remove what interrupted runs have left of a set. Only for who holds the lock of the output."""
    if identity(destination.last) is None:  # else the files are whole, and only their hidden names are left
        kept = {identity(path) for path in keep} - {None}
        _remove(path for path in destination.named() if identity(path) not in kept)
    _remove(path for path in destination.unfinished() if path not in keep)


def _link(path: Path, final: Path) -> None:
    """Give a file a second name, so that a run that is killed now leaves the first; else rename it.

    Raises OutputExists where the name is taken, and OSError where the system refuses.
    """
    try:
        final.hardlink_to(path)
    except FileExistsError:
        refuse_existing(final, replace=False)
        raise
    except OSError:  # a file system without links, such as FAT
        refuse_existing(final, replace=False)
        rename_new(path, final)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _needs_code(plan: Plan) -> bool:
    """Tell whether anything in a plan is made by code that is not of ckptfix."""
    return any(_runs_code(row.expr) for row in plan.outputs.values())


def _runs_code(expr: Expr) -> bool:
    return isinstance(expr, Initial | Compute) or any(map(_runs_code, inputs(expr)))
