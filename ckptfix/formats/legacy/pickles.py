"""Checkpoints of `torch.save` before 1.6: five pickles, then the storages.

Layout: `_legacy_save` and `_legacy_load` in torch/serialization.py. The pickles are a magic number, the protocol 1001,
the system's sizes, the object, and the sorted keys of its storages; then for each key the number of elements (int64)
and the raw bytes. All of it is little-endian, also where a big-endian machine wrote it. An object without tensors may
hold its weights as arrays of numpy; beside tensors an array is a statistic or the state of a random generator.
"""

from __future__ import annotations

from ckptfix.errors import MalformedFile, TruncatedFile
from ckptfix.formats.base import File, Node, Opaque, Storage
from ckptfix.formats.legacy.magic import MAGIC, PROTOCOL
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.calls import WITH_ARRAYS
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.storages import StorageId, StorageTable
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import text_of


def read_legacy(file: File) -> tuple[Node, tuple[tuple[str, Opaque], ...]]:
    """Give the object, and its opaque values with their places. Raises MalformedFile or TruncatedFile."""
    # The keys of the storages follow the object that refers to them. So the pickles run twice: to learn the sizes, and
    # with the places that follow from these.
    ids, keys, end = _read_layout(file)
    places = _place_storages(file, ids, keys, end)
    table = StorageTable(lambda found: places[found.key])
    if ids:
        machine = Machine(Stream(file.read, 0, end), table.find, storages=table.ids)
    else:
        machine = Machine(Stream(file.read, 0, end, file.path), table.find, WITH_ARRAYS)
    values = [machine.load() for _ in range(5)]
    return values[3], list_opaque(values[3], machine.created)


def _read_layout(file: File) -> tuple[dict[str, StorageId], list[str], int]:
    """Give the storages that the object uses, their keys in the file's order, and the byte after the pickles."""
    stream = Stream(file.read, 0, file.size)
    table = StorageTable(lambda found: Storage(file.path, 0, found.nbytes, found.nbytes))
    machine = Machine(stream, table.find, storages=table.ids)
    if machine.load() != MAGIC:
        raise MalformedFile("does not begin with the magic number of torch")
    if machine.load() != PROTOCOL:
        raise MalformedFile(f"is not of protocol {PROTOCOL}")
    machine.load()
    machine.load()
    return table.ids, _check_keys(machine.load(), table.ids), stream.position


def _check_keys(value: Node, ids: dict[str, StorageId]) -> list[str]:
    """Check that the list of keys names every storage of the object once.

    torch returns uninitialised memory for a storage that is not listed.
    """
    texts = [text_of(key) for key in value] if isinstance(value, list) else [None]
    keys = [key for key in texts if key is not None]
    if len(keys) != len(texts):
        raise MalformedFile("the list of storage keys holds something other than text")
    if len(set(keys)) != len(keys):
        raise MalformedFile("the list of storage keys holds a key twice")
    if set(keys) != ids.keys():
        raise MalformedFile(f"the file lists {len(keys)} storages, its object uses {len(ids)} that are not the same")
    return keys


def _place_storages(file: File, ids: dict[str, StorageId], keys: list[str], start: int) -> dict[str, Storage]:
    """Walk the counts from byte `start` to the end of the file."""
    places: dict[str, Storage] = {}
    position = start
    for key in keys:
        count = int.from_bytes(file.read(position, 8), "little", signed=True)
        if count != ids[key].numel:
            raise MalformedFile(f"storage {key!r} has {count} elements, the object says {ids[key].numel}")
        nbytes = ids[key].nbytes
        places[key] = Storage(file.path, position + 8, nbytes, nbytes)
        position += 8 + nbytes
        if position > file.size:
            raise TruncatedFile(
                f"ends at byte {file.size}, storage {key!r} at {position}", hint="download or copy the file again"
            )
    if position < file.size:
        raise MalformedFile(f"has {file.size - position} bytes after its last storage")
    return places
