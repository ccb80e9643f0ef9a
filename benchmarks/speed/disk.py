"""Small file systems of their own: for a folder, or on a file that a loop device shows as a disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL = 400 << 20
"""Bytes of a small disk: mkfs.xfs makes none below 300 MB."""


class NoDisk(Exception):
    """This machine cannot make or mount the file system; the message says why."""


@contextmanager
def disk(kind: str, folder: Path, nbytes: int = SMALL) -> Iterator[Path]:
    """Make a file system, and mount it on a new folder. Only what is written takes room. Raises NoDisk."""
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        raise NoDisk(f"mkfs.{kind} is not installed")
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(nbytes)
    try:
        subprocess.run([make, "-q", image], check=True, capture_output=True)  # noqa: S603
        with mounted(folder, "-t", kind, "-o", "loop", device=image):
            yield folder
    finally:
        image.unlink()


@contextmanager
def mounted(folder: Path, *options: str, device: str | Path = "none") -> Iterator[Path]:
    """Mount a file system on a new folder. Raises NoDisk."""
    folder.mkdir()
    command = ["mount", *options, device, folder]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise NoDisk(f"only who may mount can try a small file system: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S603, S607
