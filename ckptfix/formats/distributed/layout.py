"""How a `.distcp` file is laid out: an archive of `torch.save` for each tensor, and where they lie."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from msgspec import Struct

from ckptfix.formats.base import FileLayout, Slot
from ckptfix.formats.distributed.trailer import Trailer
from ckptfix.formats.pickle.emit import emit
from ckptfix.formats.zip.archive import ALIGNMENT, Member, directory_nbytes, place_members, seal_members
from ckptfix.tensors import TensorSpec

_PREFIX = "archive"
_DATA = f"{_PREFIX}/data/0"


class _Item(Struct, frozen=True):
    """An archive of one tensor, `start` bytes into the file."""

    start: int
    nbytes: int
    members: Mapping[str, Member]
    texts: Mapping[str, bytes]


class ItemsLayout(FileLayout):
    """One archive after the other, each of one tensor, and a trailer."""

    checksums = True

    def __init__(self, tensors: Mapping[str, TensorSpec], metadata: Mapping[str, str], receipt: str) -> None:
        self._metadata = metadata
        self._items: dict[str, _Item] = {}
        position = 0
        for key, spec in tensors.items():
            texts = {
                f"{_PREFIX}/data.pkl": emit(Slot(key), {key: spec}, {key: "0"}),
                f"{_PREFIX}/byteorder": b"little",
                f"{_PREFIX}/version": b"3\n",
            }
            members = place_members({**{name: len(text) for name, text in texts.items()}, _DATA: spec.nbytes})
            end = max(member.end for member in members.values()) + directory_nbytes(members)
            self._items[key] = _Item(position, end, members, texts)
            position += -(-end // ALIGNMENT) * ALIGNMENT
        self.offsets = {key: item.start + item.members[_DATA].data for key, item in self._items.items()}
        self._end = position
        self.nbytes = position + len(self._trailer(receipt))

    def _trailer(self, receipt: str) -> bytes:
        places = {key: (item.start, item.nbytes) for key, item in self._items.items()}
        return Trailer(places, self._metadata, receipt).to_bytes()

    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give the headers, the pickles and the directories of all items, and what comes after them."""
        for key, item in self._items.items():
            sums = {name: zlib.crc32(text) for name, text in item.texts.items()} | {_DATA: crc32[key]}
            for offset, data in seal_members(item.members, sums, item.texts):
                yield item.start + offset, data
        yield self._end, self._trailer(receipt)
