"""Let the system move bytes from file to file: shared where the file system can, else copied."""

from __future__ import annotations

import os

_CLONE = 0x4020940D
"""FICLONERANGE of linux/fs.h: `_IOW(0x94, 13, struct file_clone_range)`."""
_STEP = 8 << 20
"""Bytes of one call: between two of them the work can be stopped."""


def clone(source: int, start: int, target: int, offset: int, nbytes: int, block: int) -> tuple[int, int]:
    """Let the target share the whole blocks of a run with the source. Give where they begin in the run, and how many.

    Nothing is shared where the run lies differently to the blocks of the two files, or the file system cannot.
    """
    import fcntl
    import struct

    first = -start % block
    length = (nbytes - first) // block * block
    if (start - offset) % block or length <= 0:
        return 0, 0
    try:
        fcntl.ioctl(target, _CLONE, struct.pack("=qQQQ", source, start + first, length, offset + first))
    except OSError:
        return 0, 0
    return first, length


def copy(source: int, start: int, target: int, offset: int, nbytes: int) -> int:
    """Copy up to some megabytes. Give how many bytes it was; 0 where the system cannot, or the source ends here."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source, target, min(nbytes, _STEP), start, offset)
    except OSError:
        # Not between these file systems, or none of this one: reading and writing will tell whether something is wrong.
        return 0
