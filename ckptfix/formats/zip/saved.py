"""What `torch.save` puts into a zip archive: one pickle and its storages, under one prefix.

Layout: torch/serialization.py (`_save`, `_load`). The archive may be a file, or a part of one.
"""

from __future__ import annotations

import json
import zlib
from typing import Literal

from msgspec import Struct

from ckptfix.errors import MalformedFile, UnknownFormat
from ckptfix.formats.base import File, Node, Opaque, Storage
from ckptfix.formats.pickle import limits
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.calls import WITH_ARRAYS
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.storages import StorageId, StorageTable
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.zip.directory import DEFLATED, Entry, read_directory
from ckptfix.formats.zip.script import sort_attributes

RECEIPT = "ckptfix.json"
METADATA = "ckptfix-metadata.json"
"""The records that ckptfix adds to what torch writes."""

_KINDS = {".npy": "a NumPy archive", "model.json": "an old TorchScript archive", "config.json": "a Keras model"}


def read_saved(file: File) -> tuple[Node, dict[str, str], tuple[tuple[str, Opaque], ...]]:
    """Give the value that was saved, the metadata, and the opaque values with their places.

    Raises UnknownFormat for other zip archives, and what a broken one raises.
    """
    entries = read_directory(file)
    prefix = _find_prefix(entries)
    pickle = entries[f"{prefix}/data.pkl"]
    holds_storages = any(name.startswith(f"{prefix}/data/") for name in entries)
    data = pickle.read(file, limits.PICKLE_NBYTES) if holds_storages or pickle.method == DEFLATED else None
    crc = pickle.crc_of(file, limits.PICKLE_NBYTES) if data is None else zlib.crc32(data)
    keeps_crc = _keeps_crc(entries, crc, pickle)
    if keeps_crc:
        pickle.check(crc)
    archive = _Archive(file, entries, prefix, _read_byteorder(file, entries.get(f"{prefix}/byteorder")), keeps_crc)
    table = StorageTable(archive.place)
    stream = _stream_of(file, pickle) if data is None else Stream.over(data)
    if holds_storages:
        machine = Machine(stream, table.find, storages=table.ids)
    else:
        # A value without tensors may hold its weights as arrays of numpy; beside tensors an array is a statistic.
        machine = Machine(stream, table.find, WITH_ARRAYS)
    root = machine.load()
    if machine.stream.remaining:
        raise MalformedFile("has bytes after the pickle in its data.pkl")
    sort_attributes(machine.created, archive.text)
    return root, _read_metadata(file, entries, prefix), list_opaque(root, machine.created)


class _Archive(Struct, frozen=True):
    """The entries under one prefix, the byte order of the storages, and whether the checksums were computed."""

    file: File
    entries: dict[str, Entry]
    prefix: str
    byteorder: Literal["little", "big"]
    keeps_crc: bool

    def place(self, found: StorageId) -> Storage:
        """Find where a storage lies. Raises MalformedFile where it is missing or of another length."""
        entry = self.entries.get(f"{self.prefix}/data/{found.key}")
        if entry is None:
            raise MalformedFile(f"the pickle uses storage {found.key!r}, the archive lacks it")
        if entry.nbytes != found.nbytes:
            raise MalformedFile(
                f"storage {found.key!r} takes {found.nbytes} bytes, its entry in the archive has {entry.nbytes}"
            )
        return Storage(
            self.file.path,
            self.file.start + entry.offset,
            entry.nbytes,
            entry.stored_nbytes,
            "deflate" if entry.method == DEFLATED else "raw",
            self.byteorder,
            entry.crc32 if self.keeps_crc else None,
        )

    def text(self, name: str, limit: int) -> bytes | None:
        """Read an entry of at most `limit` bytes, checked; None where there is none."""
        entry = self.entries.get(f"{self.prefix}/{name}")
        if entry is None:
            return None
        data = entry.read(self.file, limit)
        if self.keeps_crc:
            entry.check(zlib.crc32(data))
        return data


def _stream_of(file: File, entry: Entry) -> Stream:
    """Read a stored pickle in its place, so that long arrays stay there."""
    start = file.start + entry.offset
    return Stream(lambda at, length: file.read(at - file.start, length), start, start + entry.nbytes, file.path)


def _read_metadata(file: File, entries: dict[str, Entry], prefix: str) -> dict[str, str]:
    """Read the records that `lay_out` adds to what torch writes."""
    metadata: dict[str, str] = {}
    if record := entries.get(f"{prefix}/{METADATA}"):
        try:
            found = json.loads(record.read(file, limits.PICKLE_NBYTES))
        except (ValueError, RecursionError) as error:
            raise MalformedFile(f"the record {METADATA} is not JSON") from error
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise MalformedFile(f"the record {METADATA} does not map text to text")
        metadata = found
    if record := entries.get(f"{prefix}/{RECEIPT}"):
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


def _keeps_crc(entries: dict[str, Entry], crc: int, pickle: Entry) -> bool:
    """Tell an archive of `torch.serialization.set_crc32_options(False)`: it writes 0 for every entry.

    The pickle is never empty and its true checksum is known, so a 0 there that is wrong, with a 0 everywhere else,
    means that none was computed.
    """
    return pickle.crc32 == crc or any(entry.crc32 for entry in entries.values())


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
