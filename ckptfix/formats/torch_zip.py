"""`.pth`, `.pt` and `.bin` as `torch.save` writes them since 1.6: a zip archive of one pickle and its storages.

Layout: torch/serialization.py (`_save`, `_load`) and caffe2/serialize/inline_container.cc. All entries lie under one
prefix: `data.pkl`, `byteorder`, and `data/KEY` for each storage, stored so that it can be mapped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ckptfix.formats.base import Contents, File, FileLayout, Format, Frame, Slot
from ckptfix.formats.pickle.emit import emit
from ckptfix.formats.zip.archive import directory_nbytes, place_members, seal_members
from ckptfix.formats.zip.first import first_name
from ckptfix.formats.zip.saved import METADATA, RECEIPT, read_saved
from ckptfix.tensors import TensorSpec

_PREFIX = "archive"


class TorchZip(Format):
    """One file of `torch.save`, or a TorchScript archive's `data.pkl`."""

    name = "torch zip"
    suffixes = (".pth", ".pt", ".bin")

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the signature of a local header; the archives of numpy tell by the first name."""
        return head.startswith(b"PK\3\4") and not (first_name(head) or "").endswith(".npy")

    def open(self, path: Path) -> Contents:
        """Read the directory and the pickle. Raises UnknownFormat for other zip archives."""
        with File(path) as file:
            root, metadata, opaque = read_saved(file)
        return Contents(path, self.name, root, metadata, opaque)

    def lay_out(
        self,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
    ) -> FileLayout:
        """Place one record for each tensor; keys that share a tensor share its storage."""
        return _Layout({key: Slot(key) for key in tensors}, tensors, shared, metadata, receipt)

    def lay_out_frame(
        self,
        frame: Frame,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
    ) -> FileLayout:
        """Place one record for each tensor, and the frame in the pickle."""
        return _Layout(frame, tensors, shared, metadata, receipt)


class _Layout(FileLayout):
    checksums = True

    def __init__(
        self,
        frame: Frame,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
    ) -> None:
        owners = [key for key in tensors if shared[key] == key]
        numbers = {key: str(number) for number, key in enumerate(owners)}
        self._records = {key: f"{_PREFIX}/data/{number}" for key, number in numbers.items()}
        self._texts = {
            f"{_PREFIX}/data.pkl": emit(frame, tensors, {key: numbers[shared[key]] for key in tensors}),
            f"{_PREFIX}/byteorder": b"little",
            f"{_PREFIX}/version": b"3\n",
        }
        if metadata:
            text = json.dumps(dict(metadata), sort_keys=True)
            self._texts[f"{_PREFIX}/{METADATA}"] = text.encode("utf-8", "surrogatepass")
        sizes = {name: len(text) for name, text in self._texts.items()}
        sizes |= {self._records[key]: tensors[key].nbytes for key in owners}
        sizes[f"{_PREFIX}/{RECEIPT}"] = len(receipt.encode())
        self._members = place_members(sizes)
        self.offsets = {key: self._members[record].data for key, record in self._records.items()}
        end = max(member.end for member in self._members.values())
        self.nbytes = end + directory_nbytes(self._members)

    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give the headers, the pickle, the receipt and the directory."""
        texts = self._texts | {f"{_PREFIX}/{RECEIPT}": receipt.encode()}
        sums = {name: zlib.crc32(text) for name, text in texts.items()}
        sums |= {record: crc32[key] for key, record in self._records.items()}
        yield from seal_members(self._members, sums, texts)
