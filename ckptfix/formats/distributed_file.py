"""One `.distcp` file of a distributed checkpoint that ckptfix wrote: items one after the other, and where they lie.

Format: torch/distributed/checkpoint/filesystem.py (`_write_item`): each item is what `torch.save` writes of one tensor.
torch keeps the places of the items in `.metadata` only; a file of torch's own is read with its folder.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptfix.errors import UnknownFormat
from ckptfix.formats.base import Contents, File, FileLayout, Format, Node, Opaque, Pairs, Slot, Window
from ckptfix.formats.distributed.metadata import Item
from ckptfix.formats.distributed.trailer import Trailer, read_trailer
from ckptfix.formats.pickle.emit import emit
from ckptfix.formats.zip.archive import ALIGNMENT, Member, directory_nbytes, place_members, seal_members
from ckptfix.formats.zip.saved import read_saved
from ckptfix.tensors import TensorSpec

_PREFIX = "archive"
_DATA = f"{_PREFIX}/data/0"


class DistributedFile(Format):
    """One file of tensors of a distributed checkpoint."""

    name = "torch distributed file"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the name, and by the signature of the first item."""
        return path.suffix == ".distcp" and head.startswith(b"PK\3\4")

    def open(self, path: Path) -> Contents:
        """Read the headers of the items. Raises UnknownFormat where only the folder knows their places."""
        with File(path) as file:
            trailer = read_trailer(file)
            if trailer is None:
                raise UnknownFormat("is one file of a distributed checkpoint", hint="name the folder that it lies in")
            items: list[tuple[Node, Node]] = []
            opaque: list[tuple[str, Opaque]] = []
            for key, (start, nbytes) in trailer.items.items():
                node, _, found = read_saved(Window(file, start, nbytes))
                items.append((key, node))
                opaque += [(f"{key}: {place or 'the root'}", value) for place, value in found]
        return Contents(path, self.name, Pairs(items), {**trailer.metadata, "ckptfix": trailer.receipt}, tuple(opaque))

    def lay_out(
        self,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
    ) -> FileLayout:
        """Place one item for each tensor; a tensor under two keys is written twice, as torch does."""
        return _Layout(tensors, metadata, receipt)


@dataclass(frozen=True)
class _Item:
    """An archive of one tensor, `start` bytes into the file."""

    start: int
    nbytes: int
    members: Mapping[str, Member]
    texts: Mapping[str, bytes]


class _Layout(FileLayout):
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


def items_of(path: Path, name: str) -> dict[str, Item]:
    """Say where the items of a file that ckptfix wrote lie, which will have the name `name`."""
    with File(path) as file:
        trailer = read_trailer(file)
    if trailer is None:
        raise UnknownFormat("is not a file that ckptfix wrote", where=str(path))
    return {key: trailer.item(key, name) for key in trailer.items}
