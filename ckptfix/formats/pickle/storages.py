"""The storages that a torch pickle names by persistent ids.

An id is `("storage", class, key, location, numel[, view])`, where `view` is `(key, offset, numel)` in elements:
`persistent_id` in torch/serialization.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from ckptfix.errors import MalformedFile
from ckptfix.formats.base import MAX_NBYTES, Node, Storage
from ckptfix.formats.pickle.values import STORAGE_TYPES, Global, StorageValue, is_of_torch, text_of


class StorageId(NamedTuple):
    """What a persistent id says: the storage's class, key and number of elements."""

    kind: str
    key: str
    numel: int

    @classmethod
    def read(cls, kind: Node, key: Node, numel: Node) -> StorageId:
        """Check what a file says of a storage. Raises MalformedFile."""
        if not isinstance(kind, Global) or not is_of_torch(kind.module) or kind.name not in STORAGE_TYPES:
            raise MalformedFile(
                f"a storage is of the unknown class {kind if isinstance(kind, Global) else type(kind).__name__}"
            )
        text = text_of(key)
        if text is None:
            raise MalformedFile("the key of a storage is not text")
        if type(numel) is not int or not 0 <= numel <= MAX_NBYTES // 16:
            raise MalformedFile(f"storage {text!r} has no possible number of elements")
        return cls(kind.name.removeprefix("_"), text, numel)

    @property
    def nbytes(self) -> int:
        """The bytes of the whole storage."""
        return self.numel * STORAGE_TYPES[self.kind][1]

    def at(self, storage: Storage) -> StorageValue:
        """Give the storage that lies there."""
        return StorageValue("torch", self.kind, storage=storage, dtype=STORAGE_TYPES[self.kind][0])


class StorageTable:
    """Answers persistent ids. `place` says where the storage of an id lies in the file."""

    def __init__(self, place: Callable[[StorageId], Storage]) -> None:
        self._place = place
        self._found: dict[str, StorageValue] = {}
        self.ids: dict[str, StorageId] = {}

    def find(self, persistent_id: Node) -> Node:
        """Give the storage that a persistent id stands for.

        Raises MalformedFile for an id of another form, and for one key with two sizes or two dtypes: loaders
        take the first and read the second tensor wrongly.
        """
        if not isinstance(persistent_id, tuple) or len(persistent_id) < 2:
            raise MalformedFile("a persistent id is not a tuple")
        tag = text_of(persistent_id[0])
        if tag == "module":
            # Before 1.6 a class of a pickled module came with its source text.
            return persistent_id[1]
        if tag != "storage" or len(persistent_id) not in (5, 6):
            raise MalformedFile("a persistent id does not name a storage")
        found = StorageId.read(persistent_id[1], persistent_id[2], persistent_id[4])
        known = self.ids.get(found.key)
        if known is None:
            self.ids[found.key] = found
            value = self._found[found.key] = found.at(self._place(found))
        elif known == found:
            value = self._found[found.key]
        else:
            raise MalformedFile(
                f"storage {found.key!r} is used as {known.kind} of {known.numel} and as {found.kind} of {found.numel}"
            )
        part = persistent_id[5] if len(persistent_id) == 6 else None
        if part is None:
            return value
        if not isinstance(part, tuple) or len(part) != 3:
            raise MalformedFile(f"storage {found.key!r} has view metadata of the wrong form")
        return part_of(value, found.key, part[1], part[2])


def part_of(whole: StorageValue, key: str, offset: Node, numel: Node) -> StorageValue:
    """Give `numel` elements of a storage from element `offset`. Raises MalformedFile where they leave it."""
    itemsize = STORAGE_TYPES[whole.name][1]
    available = whole.storage.nbytes // itemsize
    if type(offset) is not int or type(numel) is not int or not 0 <= offset <= offset + numel <= available:
        raise MalformedFile(f"a view of storage {key!r} leaves its {available} elements")
    nbytes = numel * itemsize
    run = replace(
        whole.storage,
        offset=whole.storage.offset + offset * itemsize,
        nbytes=nbytes,
        stored_nbytes=nbytes,
        crc32=whole.storage.crc32 if numel == available else None,
    )
    return StorageValue(whole.module, whole.name, storage=run, dtype=whole.dtype)
