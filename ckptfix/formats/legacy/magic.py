"""How files of torch before 1.6 begin."""

from __future__ import annotations

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
"""The first two pickles of a file of torch before 1.6."""


def is_legacy(head: bytes) -> bool:
    """Tell a file of torch before 1.6 by the magic number that it begins with, in decimal for protocols 0 and 1."""
    return MAGIC.to_bytes(10, "little") in head[:32] or head.lstrip(b"\x80\x00\x01").startswith(b"L%dL\n" % MAGIC)
