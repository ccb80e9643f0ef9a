"""Zip archives in which every field can be made to lie.

Layout: APPNOTE 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

LOCAL = (
    "signature",
    "needed",
    "flags",
    "method",
    "time",
    "date",
    "crc",
    "stored",
    "size",
    "name_length",
    "extra_length",
)
CENTRAL = (
    *("signature", "made_by", "needed", "flags", "method", "time", "date", "crc", "stored", "size"),
    *("name_length", "extra_length", "comment_length", "disk", "internal", "external", "offset"),
)
END = ("signature", "disk", "start_disk", "here", "count", "size", "offset", "comment_length")
END64 = ("signature", "length", "made_by", "needed", "disk", "start_disk", "here", "count", "size", "offset")
LOCATOR = ("signature", "disk", "offset", "disks")

_FORMS = {LOCAL: "<4s5H3L2H", CENTRAL: "<4s6H3L5H2L", END: "<4s4H2LH", END64: "<4sQ2H2L4Q", LOCATOR: "<4sLQL"}

Fields = Mapping[str, int | bytes]


@dataclass(frozen=True)
class Entry:
    """One member. `local` and `central` are what its two headers say instead of the truth, `name` too."""

    name: bytes
    data: bytes
    local: Fields = field(default_factory=dict)
    central: Fields = field(default_factory=dict)
    packed: bytes | None = None
    """What is stored, where that is not the data itself."""
    tail: bytes = b""
    """What follows the data."""
    local_extra: bytes = b""
    central_extra: bytes = b""


def deflate(data: bytes) -> bytes:
    """Give the raw deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def deflated(name: bytes, data: bytes, packed: bytes | None = None) -> Entry:
    """Make an entry that is compressed, as honestly as `packed` is."""
    return Entry(name, data, {"method": 8}, {"method": 8}, deflate(data) if packed is None else packed)


def archive(
    entries: list[Entry],
    *,
    end: Fields | None = None,
    end64: Fields | None = None,
    locator: Fields | None = None,
    before_end: bytes = b"",
    after: bytes = b"",
    cut_directory: int = 0,
) -> bytes:
    """Write an archive. zip64 records are written where `end64` or `locator` is given."""
    body, directory = bytearray(), bytearray()
    for entry in entries:
        start = len(body)
        packed = entry.data if entry.packed is None else entry.packed
        true: dict[str, int | bytes] = {"crc": zlib.crc32(entry.data), "stored": len(packed), "size": len(entry.data)}
        true |= {"name_length": len(entry.name), "needed": 20, "date": 33}
        central_name = entry.central.get("name", entry.name)
        local_name = entry.local.get("name", entry.name)
        assert isinstance(central_name, bytes)
        assert isinstance(local_name, bytes)
        body += _pack(
            LOCAL,
            b"PK\3\4",
            {**true, "name_length": len(local_name), "extra_length": len(entry.local_extra), **entry.local},
        )
        body += local_name + entry.local_extra + packed + entry.tail
        directory += _pack(
            CENTRAL,
            b"PK\1\2",
            {
                **true,
                "name_length": len(central_name),
                "offset": start,
                "extra_length": len(entry.central_extra),
                **entry.central,
            },
        )
        directory += central_name + entry.central_extra
    directory = directory[: len(directory) - cut_directory]
    true = {"here": len(entries), "count": len(entries), "size": len(directory), "offset": len(body)}
    result = bytes(body + directory) + before_end
    if end64 is not None or locator is not None:
        at = len(result)
        result += _pack(END64, b"PK\6\6", {**true, "length": 44, **(end64 or {})})
        result += _pack(LOCATOR, b"PK\6\7", {"offset": at, "disks": 1, **(locator or {})})
    return result + _pack(END, b"PK\5\6", {**true, **(end or {})}) + after


def _pack(names: tuple[str, ...], signature: bytes, values: Mapping[str, int | bytes]) -> bytes:
    found = {"signature": signature, **values}
    return struct.pack(_FORMS[names], *(found.get(name, 0) for name in names))
