"""An output path holds the whole new file or the whole old one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptfix.errors import OutputExists, WriteFailed

_HINTS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "make the folder first",
}


class NewFile:
    """A temporary file beside its destination, written at any offset."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def allocate(self, nbytes: int) -> None:
        """Reserve the whole length where the system can, so that a full disk shows before the first byte."""
        if not (nbytes and hasattr(os, "posix_fallocate")):
            return
        try:
            os.posix_fallocate(self._fd, 0, nbytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # what a file system says that cannot reserve
                raise

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of the data at an offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view = view[written:]
            offset += written


@contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[NewFile]:
    """Open a temporary file that becomes `path` when the block ends well, and vanishes when it does not.

    The file is synced, renamed, and its folder synced, in that order; its mode follows the umask. Raises
    OutputExists where the path is taken and not to be replaced, WriteFailed where the system refuses.
    """
    refuse_existing(path, replace=replace)
    temporary = path.with_name(f".ckptfix-{secrets.token_hex(6)}.tmp")
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        try:
            yield NewFile(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        refuse_existing(path, replace=replace)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a small file in one piece, as safely."""
    with new_file(path, replace=replace) as file:
        file.write(0, data)


def refuse_existing(path: Path, *, replace: bool, remedy: str = "--force replaces it") -> None:
    """Raise OutputExists where the path is a folder, or is taken and not to be replaced; WriteFailed for no path."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _write_error(path, error) from error
    if stat.S_ISDIR(mode):
        raise OutputExists("is a folder", where=str(path), hint="name a file in it")
    if not replace:
        raise OutputExists("exists", where=str(path), hint=remedy)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_error(path: Path, error: OSError) -> WriteFailed:
    reason = (error.strerror or str(error)).lower()
    return WriteFailed(f"cannot write: {reason}", where=str(path), hint=_HINTS.get(error.errno or 0))
