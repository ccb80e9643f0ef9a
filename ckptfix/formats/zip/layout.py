"""How a file of `torch.save` is laid out: the records of its archive, each where it can be mapped."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping

from ckptfix.formats.base import FileLayout, Frame
from ckptfix.formats.pickle.emit import emit
from ckptfix.formats.zip.archive import directory_nbytes, place_members, seal_members
from ckptfix.formats.zip.saved import METADATA, RECEIPT
from ckptfix.tensors import TensorSpec

_PREFIX = "archive"


class ZipLayout(FileLayout):
    """One record for each tensor that owns its storage, around a pickle that refers to them."""

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
