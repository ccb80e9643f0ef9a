"""An output path holds the whole new file or the whole old one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptfix.errors import OutputExists, WriteFailed
from ckptfix.execute.rename import rename_new
from ckptfix.execute.space import reserve
from ckptfix.execute.temporary import claim, is_at, sweep

_HINTS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make the folder first",
    errno.EFBIG: "the file system, or `ulimit -f`, allows no file of this size",
    errno.EBUSY: "wait until it has ended, or name another output",
}


class NewFile:
    """A temporary file beside its destination, written at any offset."""

    def __init__(self, path: Path, temporary: Path, fd: int, folder: int) -> None:
        self._path = path
        self._temporary = temporary
        self._fd = fd
        self._folder = folder

    def allocate(self, nbytes: int) -> None:
        """Reserve the whole length where the system can, so that a full disk shows before the first byte."""
        reserve(self._fd, nbytes)

    def fileno(self) -> int:
        """Give the descriptor, for system calls that copy between files."""
        return self._fd

    @property
    def block(self) -> int:
        """The bytes of a block of the file system."""
        return os.fstat(self._fd).st_blksize

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of the data at an offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view = view[written:]
            offset += written

    def publish(self, *, replace: bool, sync: bool = True) -> None:
        """Sync the file, rename it to its destination, sync the folder; without `sync` only rename it.

        Raises OutputExists where the path is taken.
        """
        if sync:
            os.fsync(self._fd)
        refuse_existing(self._path, replace=replace)
        if not is_at(self._fd, self._temporary):
            raise WriteFailed("the temporary file was removed while it was written", where=str(self._path))
        if replace:
            self._temporary.replace(self._path)
        else:
            try:
                rename_new(self._temporary, self._path)
            except FileExistsError:  # since a moment ago
                refuse_existing(self._path, replace=False)
                raise
        if sync:
            _sync_folder(self._folder)

    def is_published(self) -> bool:
        """Tell whether the file has its name: it may be that only its folder could not be synced."""
        return is_at(self._fd, self._path)


@contextmanager
def new_file(path: Path, *, replace: bool, sync: bool = True) -> Iterator[NewFile]:
    """Open a temporary file that becomes `path` when the block ends well, and vanishes when it does not.

    Its mode follows the umask, whatever the mode of a file that it replaces; a link at `path` is replaced itself. What
    killed runs left in the folder is removed first. Raises OutputExists where the path is taken and not to be replaced,
    WriteFailed where the system refuses or another run is writing the same path.
    """
    with unpublished_file(path, replace=replace) as file:
        yield file
        file.publish(replace=replace, sync=sync)


@contextmanager
def unpublished_file(path: Path, *, replace: bool) -> Iterator[NewFile]:
    """Open a temporary file that becomes `path` where the block publishes it. Raises what `new_file` raises."""
    refuse_existing(path, replace=replace)
    sweep(path.parent)
    try:
        with _opened(path.parent) as folder, _claimed(path) as (temporary, fd):
            refuse_existing(path, replace=replace)  # a run that has just ended may have made it
            yield NewFile(path, temporary, fd, folder)
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep other runs from writing a path for a while, without writing it. Raises WriteFailed where one is."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_claimed(path))
        except OSError as error:
            raise write_error(path, error) from error
        yield


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
        raise write_error(path, error) from error
    if stat.S_ISDIR(mode):
        raise OutputExists("is a folder", where=str(path), hint="name a file in it")
    if not replace:
        raise OutputExists("exists", where=str(path), hint=remedy)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open the folder before anything is written: one that cannot be synced shows now."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[Path, int]]:
    """Hold the temporary file, and remove it if it is still there at the end, before its lock is given up."""
    temporary, fd = claim(path)
    try:
        yield temporary, fd
    finally:
        with contextlib.suppress(OSError):
            if is_at(fd, temporary):
                temporary.unlink()
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut."""
    with _opened(folder) as fd:
        _sync_folder(fd)


def _sync_folder(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # what a file system says that syncs no folders
            raise


def write_error(path: Path, error: OSError) -> WriteFailed:
    """Translate a failed system call on an output."""
    reason = (error.strerror or str(error)).lower()
    return WriteFailed(f"cannot write: {reason}", where=str(path), hint=_HINTS.get(error.errno or 0))
