"""Storages of torch in a plain pickle: each is a small file of its own, in bytes.

`TypedStorage.__reduce__` in torch/storage.py gives `_load_from_bytes(data)`, where `data` is what `torch.save` wrote of
the storage before 1.6 (see `formats/legacy/pickles.py`).
"""

from __future__ import annotations

import codecs
from pathlib import Path

from ckptfix.errors import MalformedFile, RefusedContent
from ckptfix.formats.base import Node, Storage
from ckptfix.formats.legacy.magic import MAGIC, PROTOCOL
from ckptfix.formats.pickle.arrays import storage_of
from ckptfix.formats.pickle.costs import NESTED_BUDGET
from ckptfix.formats.pickle.globals import Arguments, is_known
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.storages import StorageTable
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import Run, StorageValue, text_of

_HEAD = 4096
"""Bytes that hold the pickles before the elements; they are about 350."""


def load_storage(args: Arguments) -> Node:
    """Find the storage in the bytes that are the only argument. None where they hold anything else."""
    data = args[0] if len(args) == 1 else None
    if isinstance(data, Run) and data.name == "bytes":
        stored = data.fetch(data.offset, min(_HEAD, data.nbytes))
        head = stored if data.encoding == "raw" else _narrow(stored)
    elif isinstance(data, bytes):
        head = data[:_HEAD]
    else:
        return None
    found = _read(head)
    if found is None:
        return None
    value, start = found
    if isinstance(data, bytes):
        rest: Node = data[start:]
    else:
        # In text each byte of the pickles is a character, of one byte or two.
        rest = data.rest(start if data.encoding == "raw" else len(head[:start].decode("latin-1").encode()))
    storage = storage_of(rest, value.storage.nbytes, "little")
    return None if storage is None else StorageValue(value.module, value.name, storage=storage, dtype=value.dtype)


def _narrow(stored: bytes) -> bytes:
    """Decode text that may end inside a character."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(stored).encode("latin-1")
    except UnicodeError as error:
        raise MalformedFile("bytes that are written as text hold other text") from error


def _read(head: bytes) -> tuple[StorageValue, int] | None:
    """Run the five pickles. Give the storage that they describe, and the byte at which its elements begin."""
    stream = Stream.over(head)
    table = StorageTable(lambda found: Storage(Path(), 0, found.nbytes, found.nbytes))
    machine = Machine(stream, table.find, budget=NESTED_BUDGET)
    try:
        magic, protocol, _, value, keys = (machine.load() for _ in range(5))
        count = int.from_bytes(stream.take(8), "little", signed=True)
    except RefusedContent:
        return None
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(value, StorageValue):
        return None
    listed = [text_of(key) for key in keys] if isinstance(keys, list) else []
    described = [(one.key, one.numel) for one in table.ids.values()]
    # Whatever else the bytes hold would have run too, so they stay what they are.
    sound = described == [(key, count) for key in listed] and all(map(is_known, machine.created))
    return (value, stream.position) if sound else None
