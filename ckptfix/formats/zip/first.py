"""What the first bytes of a zip archive tell of it."""

from __future__ import annotations

import struct

_LOCAL = struct.Struct("<4s5H3L2H")


def first_name(head: bytes) -> str | None:
    """Give the name of the first entry; None where the bytes begin no archive, or end inside the name."""
    if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
        return None
    name_len = _LOCAL.unpack_from(head)[-2]
    name = head[_LOCAL.size : _LOCAL.size + name_len]
    return name.decode("utf-8", "replace") if len(name) == name_len else None
