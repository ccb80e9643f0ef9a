"""Run `ckptfix` where the kernel refuses some system calls: `python -m tests.durability.refusing CALL=ERRNO,... ARGS`.

It is what a quota, or a file system that lacks something, gives, for a machine that has neither. A filter of
seccomp(2) answers the calls; a process never gets rid of it, so this is a program.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

from ckptfix.cli.main import run

NUMBERS = {
    "x86_64": {
        "ioctl": 16,
        "pwrite64": 18,
        "link": 86,
        "linkat": 265,
        "fallocate": 285,
        "renameat2": 316,
    },
    "aarch64": {
        "ioctl": 29,
        "pwrite64": 68,
        "linkat": 37,
        "fallocate": 47,
        "renameat2": 276,
    },
}
"""From the kernel's tables, by machine."""

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(calls: dict[str, str]) -> None:
    """Let the kernel answer calls by errors from now on; `0` lets them do nothing and say that they did."""
    numbers = NUMBERS[platform.machine()]
    steps = [(_LOAD, 0, 0, 0)]  # the number of the call comes first in what a filter sees
    for call, error in calls.items():
        if call in numbers:
            steps += [(_JUMP_IF_EQUAL, 0, 1, numbers[call]), (_RETURN, 0, 0, _ERRNO | getattr(errno, error, 0))]
    steps.append((_RETURN, 0, 0, _ALLOW))
    program = _Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    library = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if library.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse(dict(part.split("=") for part in sys.argv[1].split(",")))
    sys.exit(run(sys.argv[2:]))
