"""The temporary file of a run: locked while it is written, so that what a killed run left is known by its free lock.

Its name follows from the output's, so that two runs to one output meet. The lock is flock(2)'s: it ends with the
process that holds it, however that ends. On a file system without locks (some NFS mounts) nobody can tell a living
run's file from a dead one's: there each run takes a name of its own, and what a killed one leaves stays until a user
removes it. Where each host of a shared folder keeps its locks to itself, a run may lose its file to another's sweep;
it ends with an error then, since a rename of what is gone fails, and the output keeps its old content.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from pathlib import Path
from typing import Literal

from ckptfix.digest import hash_chunks

_NAME = re.compile(r"\.ckptfix-[0-9a-f]{12}\.tmp")
_PATIENCE = 0.5
"""Seconds until a lock counts as another writer's: a sweep holds one for less than a millisecond."""


class Busy(OSError):
    """Another run is writing the same output."""


def claim(path: Path) -> tuple[Path, int]:
    """Make the temporary file of an output, beside it; give its path and a locked descriptor.

    Its mode follows the umask. Raises Busy where another run has it, OSError where the system refuses.
    """
    temporary = path.with_name(f".ckptfix-{hash_chunks([os.fsencode(path.name)])[:12]}.tmp")
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            match _remove_stray(temporary):
                case "living":
                    time.sleep(0.01)
                case "unknown":
                    temporary = path.with_name(f".ckptfix-{os.urandom(6).hex()}.tmp")
            continue
        # Only a sweep can hold the lock now. It takes what is not locked yet for a stray: then another must be made.
        if not _lock(fd) or is_at(fd, temporary):
            return temporary, fd
        os.close(fd)
    raise Busy(errno.EBUSY, "another run is writing it")


def sweep(folder: Path) -> None:
    """Remove the temporary files in a folder that no run holds. What cannot be removed is left."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_stray(Path(entry.path))


def is_at(fd: int, path: Path) -> bool:
    """Tell whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _lock(fd: int) -> bool:
    """Wait for the lock; tell whether there are locks at all."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _remove_stray(temporary: Path) -> Literal["gone", "living", "unknown"]:
    """Remove a temporary file whose lock is free. It is only ever removed under that lock."""
    try:
        # Over NFS the right to lock is the right to write.
        fd = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "gone"
    except OSError:  # another user's, or no file at all
        return "unknown"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(fd, temporary):  # else a writer has renamed it since: it is somebody's output
            temporary.unlink()
    except BlockingIOError:
        return "living"
    except OSError:
        return "unknown"
    finally:
        os.close(fd)
    return "gone"
