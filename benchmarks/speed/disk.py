"""A file system of its own, on a file that a loop device shows as a disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoDisk(Exception):
    """This machine cannot make or mount the file system; the message says why."""


@contextmanager
def disk(kind: str, folder: Path, nbytes: int) -> Iterator[Path]:
    """Mount a new file system on a new folder. Only what is written takes room. Raises NoDisk."""
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        raise NoDisk(f"mkfs.{kind} is not installed")
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(nbytes)
    try:
        _run(make, "-q", image)
        folder.mkdir()
        _run("mount", "-t", kind, "-o", "loop", image, folder)
        try:
            yield folder
        finally:
            _run("umount", "--lazy", folder)
    finally:
        image.unlink()


def _run(*command: str | Path) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise NoDisk(f"{Path(command[0]).name}: {said[0] if said else f'exit status {ended.returncode}'}")
