"""`.pth`, `.pt` and `.bin` as `torch.save` writes them since 1.6: a zip archive of one pickle and its storages.

Layout: torch/serialization.py (`_save`, `_load`) and caffe2/serialize/inline_container.cc. All entries lie under one
prefix: `data.pkl`, `byteorder`, and `data/KEY` for each storage, stored so that it can be mapped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from ckptfix.errors import MalformedFile, UnknownFormat
from ckptfix.formats.base import Contents, File, FileLayout, Format, Frame, Slot, Storage
from ckptfix.formats.pickle import Machine, StorageId, StorageTable, Stream, limits, list_opaque
from ckptfix.formats.pickle.emit import emit
from ckptfix.formats.zip.archive import directory_nbytes, place_members, seal_members
from ckptfix.formats.zip.directory import DEFLATED, Entry, read_directory
from ckptfix.tensors import TensorSpec

_PREFIX = "archive"
_RECEIPT = "ckptfix.json"
_METADATA = "ckptfix-metadata.json"

_KINDS = {".npy": "a NumPy archive", "model.json": "an old TorchScript archive", "config.json": "a Keras model"}


class TorchZip(Format):
    """One file of `torch.save`, or a TorchScript archive's `data.pkl`."""

    name = "torch zip"
    suffixes = (".pth", ".pt", ".bin")

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the signature of a local header."""
        return head.startswith(b"PK\3\4")

    def open(self, path: Path) -> Contents:
        """Read the directory and the pickle. Raises UnknownFormat for other zip archives."""
        with File(path) as file:
            entries = read_directory(file)
            prefix = _find_prefix(entries)
            pickle = entries[f"{prefix}/data.pkl"]
            data = pickle.read(file, limits.PICKLE_NBYTES)
            keeps_crc = _keeps_crc(entries, pickle, data)
            if keeps_crc:
                pickle.check(data)
            order = _read_byteorder(file, entries.get(f"{prefix}/byteorder"))
            metadata = _read_metadata(file, entries, prefix)

        def place(found: StorageId) -> Storage:
            entry = entries.get(f"{prefix}/data/{found.key}")
            if entry is None:
                raise MalformedFile(f"the pickle uses storage {found.key!r}, the archive lacks it")
            if entry.nbytes != found.nbytes:
                raise MalformedFile(
                    f"storage {found.key!r} takes {found.nbytes} bytes, its entry in the archive has {entry.nbytes}"
                )
            return Storage(
                path,
                entry.offset,
                entry.nbytes,
                entry.stored_nbytes,
                "deflate" if entry.method == DEFLATED else "raw",
                order,
                entry.crc32 if keeps_crc else None,
            )

        machine = Machine(Stream.over(data), StorageTable(place).find)
        root = machine.load()
        if machine.stream.position != len(data):
            raise MalformedFile("has bytes after the pickle in its data.pkl")
        return Contents(path, self.name, root, metadata, list_opaque(root, machine.created))

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
            self._texts[f"{_PREFIX}/{_METADATA}"] = text.encode("utf-8", "surrogatepass")
        sizes = {name: len(text) for name, text in self._texts.items()}
        sizes |= {self._records[key]: tensors[key].nbytes for key in owners}
        sizes[f"{_PREFIX}/{_RECEIPT}"] = len(receipt.encode())
        self._members = place_members(sizes)
        self.offsets = {key: self._members[record].data for key, record in self._records.items()}
        end = max(member.end for member in self._members.values())
        self.nbytes = end + directory_nbytes(self._members)

    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give the headers, the pickle, the receipt and the directory."""
        texts = self._texts | {f"{_PREFIX}/{_RECEIPT}": receipt.encode()}
        sums = {name: zlib.crc32(text) for name, text in texts.items()}
        sums |= {record: crc32[key] for key, record in self._records.items()}
        yield from seal_members(self._members, sums, texts)


def _read_metadata(file: File, entries: dict[str, Entry], prefix: str) -> dict[str, str]:
    """Read the records that `lay_out` adds to what torch writes."""
    metadata: dict[str, str] = {}
    if record := entries.get(f"{prefix}/{_METADATA}"):
        try:
            found = json.loads(record.read(file, limits.PICKLE_NBYTES))
        except (ValueError, RecursionError) as error:
            raise MalformedFile(f"the record {_METADATA} is not JSON") from error
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise MalformedFile(f"the record {_METADATA} does not map text to text")
        metadata = found
    if record := entries.get(f"{prefix}/{_RECEIPT}"):
        metadata["ckptfix"] = record.read(file, limits.PICKLE_NBYTES).decode("utf-8", "replace")
    return metadata


def _find_prefix(entries: dict[str, Entry]) -> str:
    """Give the folder that all entries lie in."""
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if not pickles:
        kind = next((kind for end, kind in _KINDS.items() if any(name.endswith(end) for name in entries)), None)
        raise UnknownFormat(f"is {kind or 'a zip archive without data.pkl'}, not a torch checkpoint")
    prefix = pickles[0].partition("/")[0]
    for name in entries:
        if not name.startswith(f"{prefix}/"):
            raise MalformedFile(f"the archive has the entry {name!r} outside of {prefix!r}")
    if f"{prefix}/data.pkl" not in entries:
        raise UnknownFormat("is a zip archive with data.pkl in an inner folder, not a torch checkpoint")
    return prefix


def _keeps_crc(entries: dict[str, Entry], pickle: Entry, data: bytes) -> bool:
    """Tell an archive of `torch.serialization.set_crc32_options(False)`: it writes 0 for every entry.

    The pickle is never empty and its true checksum is known, so a 0 there that is wrong, with a 0 everywhere else,
    means that none was computed.
    """
    return pickle.crc32 == zlib.crc32(data) or any(entry.crc32 for entry in entries.values())


def _read_byteorder(file: File, record: Entry | None) -> Literal["little", "big"]:
    """Read the byte order of the storages; files without the record (before 2.1) are little-endian."""
    if record is None:
        return "little"
    match record.read(file, 64):
        case b"little":
            return "little"
        case b"big":
            return "big"
        case other:
            raise MalformedFile(f"the byteorder record says {other!r}")
