"""One `.distcp` file of a distributed checkpoint that ckptfix wrote: items one after the other, and where they lie.

Format: torch/distributed/checkpoint/filesystem.py (`_write_item`): each item is what `torch.save` writes of one tensor.
torch keeps the places of the items in `.metadata` only; a file of torch's own is read with its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ckptfix.errors import UnknownFormat
from ckptfix.formats.base import Contents, File, FileLayout, Format, Node, Opaque, Pairs, Places, Window
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:
    from ckptfix.formats.distributed.metadata import Item


class DistributedFile(Format):
    """One file of tensors of a distributed checkpoint."""

    name = "torch distributed file"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the name, and by the signature of the first item."""
        return path.suffix == ".distcp" and head.startswith(b"PK\3\4")

    def open(self, path: Path) -> Contents:
        """Read the headers of the items. Raises UnknownFormat where only the folder knows their places."""
        from ckptfix.formats.distributed.trailer import read_trailer
        from ckptfix.formats.zip.saved import read_saved

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
        places: Places = MappingProxyType({}),
    ) -> FileLayout:
        """Place one item for each tensor; a tensor under two keys is written twice, as torch does."""
        from ckptfix.formats.distributed.layout import ItemsLayout

        return ItemsLayout(tensors, metadata, receipt)


def items_of(path: Path, name: str) -> dict[str, Item]:
    """Say where the items of a file that ckptfix wrote lie, which will have the name `name`."""
    from ckptfix.formats.distributed.trailer import read_trailer

    with File(path) as file:
        trailer = read_trailer(file)
    if trailer is None:
        raise UnknownFormat("is not a file that ckptfix wrote", where=str(path))
    return {key: trailer.item(key, name) for key in trailer.items}
