"""Lay a zip archive out as torch does: stored entries whose data is aligned, so that it can be mapped.

Layout: APPNOTE 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT); the padding goes into an
extra field of id `FB`, as in caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from msgspec import Struct

ALIGNMENT = 64
"""Bytes: the data of an entry starts at a multiple of this."""

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_SENTINEL = 0xFFFFFFFF
_VERSION = 45  # zip64
_UTF8 = 0x0800
_EPOCH = 0x21  # 1 January 1980: a time of writing would make equal inputs give different files


class Member(Struct, frozen=True, gc=False):
    """One entry of an archive: its name, its length in bytes, and where it lies."""

    name: bytes
    nbytes: int
    header: int
    data: int

    @property
    def end(self) -> int:
        """The byte after the data."""
        return self.data + self.nbytes

    @property
    def _is_large(self) -> bool:
        return self.nbytes >= _SENTINEL

    def local_header(self, crc32: int) -> bytes:
        """Give all bytes from the header to the data."""
        size = _SENTINEL if self._is_large else self.nbytes
        extra = struct.pack("<2H2Q", 1, 16, self.nbytes, self.nbytes) if self._is_large else b""
        padding = self.data - self.header - _LOCAL.size - len(self.name) - len(extra) - 4
        extra += struct.pack("<2sH", b"FB", padding) + bytes(padding)
        fields = (_VERSION, _UTF8, 0, 0, _EPOCH, crc32, size, size, len(self.name), len(extra))
        return _LOCAL.pack(b"PK\3\4", *fields) + self.name + extra

    def central_header(self, crc32: int) -> bytes:
        """Give the entry's record in the directory."""
        size = _SENTINEL if self._is_large else self.nbytes
        offset = min(self.header, _SENTINEL)
        large = [self.nbytes, self.nbytes] if self._is_large else []
        large += [self.header] if offset == _SENTINEL else []
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        fields = (_VERSION, _VERSION, _UTF8, 0, 0, _EPOCH, crc32, size, size, len(self.name), len(extra), 0, 0, 0, 0)
        return _CENTRAL.pack(b"PK\1\2", *fields, offset) + self.name + extra


def place_members(sizes: Mapping[str, int]) -> dict[str, Member]:
    """Place entries one after the other, from their names and lengths in bytes."""
    members: dict[str, Member] = {}
    position = 0
    for name, nbytes in sizes.items():
        encoded = name.encode()
        least = position + _LOCAL.size + len(encoded) + 4 + (20 if nbytes >= _SENTINEL else 0)
        data = -(-least // ALIGNMENT) * ALIGNMENT
        members[name] = Member(encoded, nbytes, position, data)
        position = data + nbytes
    return members


def directory_nbytes(members: Mapping[str, Member]) -> int:
    """Give the length of the directory and its end records."""
    records = sum(len(member.central_header(0)) for member in members.values())
    return records + _END64.size + _END64_LOCATOR.size + _END.size


def directory(members: Mapping[str, Member], crc32: Mapping[str, int]) -> tuple[int, bytes]:
    """Give the directory with its end records, and the byte it goes to. zip64 records are always written."""
    start = max((member.end for member in members.values()), default=0)
    records = bytearray()
    for name, member in members.items():
        records += member.central_header(crc32[name])
    count, length = len(members), len(records)
    end64 = _END64.pack(b"PK\6\6", _END64.size - 12, _VERSION, _VERSION, 0, 0, count, count, length, start)
    locator = _END64_LOCATOR.pack(b"PK\6\7", 0, start + length, 1)
    short = min(count, 0xFFFF)
    end = _END.pack(b"PK\5\6", 0, 0, short, short, min(length, _SENTINEL), min(start, _SENTINEL), 0)
    records += end64 + locator + end
    return start, bytes(records)


def seal_members(
    members: Mapping[str, Member], crc32: Mapping[str, int], texts: Mapping[str, bytes]
) -> Iterator[tuple[int, bytes]]:
    """Give the local headers, the texts and the directory, with their offsets."""
    for name, member in members.items():
        yield member.header, member.local_header(crc32[name])
        if name in texts:
            yield member.data, texts[name]
    yield directory(members, crc32)
