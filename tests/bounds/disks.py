"""Small file systems, which not every machine can make, and how much of a file is shared."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.speed.disk import NoDisk

_FIEMAP, _SHARED, _LAST = 0xC020660B, 0x2000, 0x1
"""From linux/fiemap.h."""


@contextmanager
def or_skip(made: AbstractContextManager[Path]) -> Iterator[Path]:
    """Enter a file system; skip where this machine cannot make or mount it."""
    with ExitStack() as stack:
        try:
            place = stack.enter_context(made)
        except NoDisk as error:
            pytest.skip(str(error))
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
