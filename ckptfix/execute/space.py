"""Reserve the space of a file before its first byte."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What a file system says that cannot reserve."""


def reserve(fd: int, nbytes: int) -> None:
    """Reserve the whole length; where the file system cannot, ask it for its free space.

    Raises OSError: no space, over the quota, over the limit on a file's size.
    """
    if nbytes == 0:
        return
    while (code := _fallocate()(fd, nbytes)) == errno.EINTR:
        pass  # a signal that asks to end has raised by now
    if code in _CANNOT:
        refuse_full(fd, nbytes)
    elif code:
        raise OSError(code, os.strerror(code))


def refuse_full(place: int | Path, nbytes: int) -> None:
    """Raise OSError where the file system of an open file, or of a folder, has less free space than that."""
    system = os.statvfs(place)
    # Some virtual file systems count no blocks at all.
    if system.f_blocks > 0 and system.f_bavail * system.f_frsize < nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@cache
def _fallocate() -> Callable[[int, int], int]:
    """Give Linux's fallocate(2) as a function of descriptor and length that gives an errno, 0 for success.

    posix_fallocate, which Python offers, falls back on a write to every block: minutes for a large file over NFS.
    """
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return lambda fd, nbytes: errno.ENOSYS
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return lambda fd, nbytes: ctypes.get_errno() if function(fd, 0, 0, nbytes) else 0
