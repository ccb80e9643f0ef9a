"""Rename a file to a name that must be free."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
"""What a system, or a file system such as NFS, says that cannot refuse a name that is taken."""


def rename_new(path: Path, new: Path) -> None:
    """Rename a file. Raises FileExistsError where the new name is taken, OSError where the system refuses.

    Where the system cannot do both in one step, it is asked before.
    """
    code = _renameat2()(os.fsencode(path), os.fsencode(new))
    if code in _CANNOT:
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
        path.rename(new)
    elif code:
        raise OSError(code, os.strerror(code), str(path))


@cache
def _renameat2() -> Callable[[bytes, bytes], int]:
    """Give Linux's renameat2(2) as a function of two paths that gives an errno, 0 for success."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return lambda path, new: errno.ENOSYS
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return lambda path, new: ctypes.get_errno() if function(_AT_FDCWD, path, _AT_FDCWD, new, _RENAME_NOREPLACE) else 0
