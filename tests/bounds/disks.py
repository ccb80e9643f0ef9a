"""Small file systems of their own, on a file that a loop device shows as a disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durability.test_space import mounted

SIZE = 400 << 20
"""Bytes of a disk: mkfs.xfs makes none below 300 MB. Only what is written takes room."""
_FIEMAP, _SHARED, _LAST = 0xC020660B, 0x2000, 0x1
"""From linux/fiemap.h."""


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Path]:
    """Make and mount a file system that can share blocks; skip where this machine cannot."""
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([make, "-q", image], check=True, capture_output=True)
    with mounted(folder, "-t", kind, "-o", "loop", device=image) as place:
        yield place


def shared_bytes(path: Path) -> int:
    """Count the bytes of a file in blocks that the file system says other files have too."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        start, shared = 0, 0
        while True:
            request = bytearray(struct.pack("=QQLLLL", start, 1 << 62, 1, 0, 64, 0) + bytes(64 * 56))
            fcntl.ioctl(file, _FIEMAP, request)
            count: int = struct.unpack_from("=L", request, 20)[0]
            for number in range(count):
                logical, _, length = struct.unpack_from("=QQQ", request, 32 + 56 * number)
                flags = struct.unpack_from("=L", request, 32 + 56 * number + 40)[0]
                shared += int(length) if flags & _SHARED else 0
                if flags & _LAST:
                    return shared
                start = logical + length
            if not count:
                return shared
