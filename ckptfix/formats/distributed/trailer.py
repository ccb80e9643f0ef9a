"""What ckptfix adds after the items of a `.distcp` file, where no loader looks: where they lie, metadata, the receipt.

A JSON object, its length in 8 bytes (little-endian), and a mark of 8 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec import Struct

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats.base import File, read_json_object
from ckptfix.formats.base.json_object import decode_json
from ckptfix.formats.distributed.metadata import Item

_MARK = b"CKPTFIX1"
_END = len(_MARK) + 8

MAX_TRAILER = 100_000_000
"""Bytes of the JSON object: what the header of a safetensors file may have."""


class Trailer(Struct, frozen=True):
    """Where the item of each key lies, as (byte, bytes); the metadata, and the receipt."""

    items: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str]
    receipt: str

    def to_bytes(self) -> bytes:
        """Write it down; its length depends on no digest's value."""
        document = {"items": self.items, "metadata": dict(self.metadata), "ckptfix": self.receipt}
        text = json.dumps(document, separators=(",", ":")).encode()
        return text + len(text).to_bytes(8, "little") + _MARK

    def item(self, key: str, file: str) -> Item:
        """Give the item of a key as the metadata of the folder name it."""
        return Item(file, *self.items[key])


def read_trailer(file: File) -> Trailer | None:
    """Read what is at the end of a file; None where nothing was added. Raises MalformedFile for a broken one."""
    end = file.read(file.size - _END, _END) if file.size >= _END else b""
    if not end.endswith(_MARK):
        return None
    length = int.from_bytes(end[:8], "little")
    if length > MAX_TRAILER:
        raise LimitExceeded(f"the list of items takes {length} bytes, {MAX_TRAILER} are allowed")
    if length > file.size - _END:
        raise MalformedFile("the list of items is longer than the file")
    what = "the list of items"
    document = read_json_object(decode_json(file.read(file.size - _END - length, length), what), what)
    items, metadata, receipt = (document.get(name) for name in ("items", "metadata", "ckptfix"))
    if not isinstance(items, dict) or not isinstance(metadata, dict) or not isinstance(receipt, str):
        raise MalformedFile("the list of items is not what ckptfix writes")
    if not all(isinstance(text, str) for text in metadata.values()):
        raise MalformedFile("the list of items has metadata that are not text")
    places: dict[str, tuple[int, int]] = {}
    for key, place in items.items():
        if not isinstance(place, list) or [type(number) for number in place] != [int, int] or min(place) < 0:
            raise MalformedFile(f"the list of items does not say where {key[:80]!r} lies")
        places[key] = (place[0], place[1])
    return Trailer(places, metadata, receipt)
