"""What `torch.save` puts into a zip archive: one pickle and its storages, under one prefix.

Layout: torch/serialization.py (`_save`, `_load`). The archive may be a file, or a part of one.
"""

from __future__ import annotations

import json
import zlib
from typing import Literal

from ckptfix.errors import MalformedFile, UnknownFormat
from ckptfix.formats.base import File, Node, Opaque, Storage
from ckptfix.formats.pickle import WITH_ARRAYS, Machine, StorageId, StorageTable, Stream, limits, list_opaque
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
    data = pickle.read(file, limits.PICKLE_NBYTES)
    keeps_crc = _keeps_crc(entries, pickle, data)
    if keeps_crc:
        pickle.check(data)
    order = _read_byteorder(file, entries.get(f"{prefix}/byteorder"))

    def place(found: StorageId) -> Storage:
        entry = entries.get(f"{prefix}/data/{found.key}")
        if entry is None:
            raise MalformedFile(f"the pickle uses storage {found.key!r}, the archive lacks it")
        if entry.nbytes != found.nbytes:
            raise MalformedFile(
                f"storage {found.key!r} takes {found.nbytes} bytes, its entry in the archive has {entry.nbytes}"
            )
        return Storage(
            file.path,
            file.start + entry.offset,
            entry.nbytes,
            entry.stored_nbytes,
            "deflate" if entry.method == DEFLATED else "raw",
            order,
            entry.crc32 if keeps_crc else None,
        )

    def source(name: str, limit: int) -> bytes | None:
        entry = entries.get(f"{prefix}/{name}")
        text = None if entry is None else entry.read(file, limit)
        if entry is not None and text is not None and keeps_crc:
            entry.check(text)
        return text

    table = StorageTable(place)
    machine = Machine(Stream.over(data), table.find, storages=table.ids)
    root = machine.load()
    if not table.ids:
        machine = Machine(_stream_of(file, pickle, data), table.find, WITH_ARRAYS)
        root = machine.load()
    sort_attributes(machine.created, source)
    if machine.stream.remaining:
        raise MalformedFile("has bytes after the pickle in its data.pkl")
    return root, _read_metadata(file, entries, prefix), list_opaque(root, machine.created)


def _stream_of(file: File, entry: Entry, data: bytes) -> Stream:
    """Read the pickle again, for the arrays of numpy in it: a value without tensors may hold its weights so.

    Beside tensors an array is a statistic or the state of a random generator. What is deflated has no place in the
    file, so long arrays are held too.
    """
    if entry.method == DEFLATED:
        return Stream.over(data)
    return Stream.within(data, file.start + entry.offset, file.path)


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
