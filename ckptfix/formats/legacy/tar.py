"""The oldest checkpoints of torch, from its first releases: a tar archive of `storages`, `tensors` and `pickle`.

Layout: `legacy_load` inside `_legacy_load` of torch/serialization.py. `storages` is a count, then for each storage a
pickled `(key, location, class)`, an int64 number of elements and the raw bytes; then a pickled list of views, each
`(key, key of the root, offset, numel)`. `tensors` is a count, then for each a pickled `(key, key of the storage,
class)`, an int32 rank, 4 unused bytes, and the extents, strides and offset as int64. `pickle` is the object, whose
persistent ids are those keys. All is little-endian, and read where it lies in the archive.
"""

from __future__ import annotations

import struct

from ckptfix.errors import MalformedFile, TruncatedFile, UnknownFormat
from ckptfix.formats.base import MAX_RANK, File, Node, Opaque, Storage, TensorRef
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.storages import StorageId, part_of
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import StorageValue, text_of, view

_BLOCK = 512
_MEMBERS = ("sys_info", "pickle", "tensors", "storages")
_MAX_COUNT = 1_000_000


def read_tar(file: File) -> tuple[Node, tuple[tuple[str, Opaque], ...]]:
    """Give the object, and its opaque values with their places. Raises UnknownFormat for other tar archives."""
    members = _list_members(file)
    if not {"pickle", "tensors", "storages"} <= members.keys():
        raise UnknownFormat("is a tar archive, not a checkpoint of torch", hint="extract it and name one file")
    found = _Objects(file)
    found.read_storages(*members["storages"])
    found.read_tensors(*members["tensors"])
    root = found.read_object(*members["pickle"])
    return root, list_opaque(root, found.created)


def _list_members(file: File) -> dict[str, tuple[int, int]]:
    """Give the bytes, from and to, of each member. Headers: POSIX pax, "ustar Interchange Format"."""
    members: dict[str, tuple[int, int]] = {}
    position = 0
    while position < file.size:
        header = file.read(position, _BLOCK)
        if header == bytes(_BLOCK):
            return members
        name = header[:100].rstrip(b"\0").decode("utf-8", "replace")
        if header[257:262] != b"ustar" or not _is_sound(header):
            raise MalformedFile(f"has no tar header at byte {position}")
        start = position + _BLOCK
        stop = start + _octal(header[124:136])
        if header[156:157] == b"x":
            _check_extension(file, start, stop)
        elif name not in _MEMBERS or header[156:157] not in (b"0", b"\0"):
            raise UnknownFormat("is a tar archive, not a checkpoint of torch", hint="extract it and name one file")
        elif name in members:
            raise MalformedFile(f"the archive has the member {name!r} twice")
        else:
            members[name] = (start, stop)
        position = start + -(-(stop - start) // _BLOCK) * _BLOCK
    raise TruncatedFile("has no end of its tar archive", hint="download or copy the file again")


def _check_extension(file: File, start: int, stop: int) -> None:
    """Check that an extended header gives times only, as Python writes it; others could rename or resize a member."""
    if stop - start > _BLOCK:
        raise MalformedFile(f"has an extended tar header of {stop - start} bytes")
    for record in file.read(start, stop - start).splitlines():
        if not record.partition(b" ")[2].startswith((b"mtime=", b"atime=", b"ctime=")):
            raise MalformedFile("has an extended tar header that changes more than a time")


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise MalformedFile("a tar header holds a number that is none")
    return int(digits or b"0", 8)


def _is_sound(header: bytes) -> bool:
    """Whether the header's checksum, the sum of its bytes with blanks in its own place, is right."""
    return _octal(header[148:156]) == sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")


class _Objects:
    """The storages and tensors of an archive, by their keys."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._found: dict[int, StorageValue | TensorRef] = {}
        self.created: list[Opaque] = []

    def read_storages(self, start: int, stop: int) -> None:
        """Find where each storage lies, and the views of them."""
        machine = self._machine(start, stop)
        for _ in range(_count(machine.load())):
            key, _, kind = _fields(machine.load(), 3)
            numel = int.from_bytes(machine.stream.take(8), "little", signed=True)
            found = StorageId.read(kind, str(_number(key)), numel)
            place = Storage(self._file.path, machine.stream.position, found.nbytes, found.nbytes)
            machine.stream.skip(found.nbytes)
            self._add(key, found.at(place))
        views = machine.load()
        if not isinstance(views, list):
            raise MalformedFile("the views of the storages are not a list")
        for one in views:
            key, root, offset, length = _fields(one, 4)
            self._add(key, part_of(self._storage(root), str(_number(root)), offset, length))
        self._close(machine)

    def read_tensors(self, start: int, stop: int) -> None:
        """Read which part of which storage each tensor is."""
        machine = self._machine(start, stop)
        for _ in range(_count(machine.load())):
            key, root, _ = _fields(machine.load(), 3)
            rank = int.from_bytes(machine.stream.take(8)[:4], "little", signed=True)
            if not 0 <= rank <= MAX_RANK:
                raise MalformedFile(f"a tensor has {rank} axes, {MAX_RANK} are possible")
            numbers = struct.unpack(f"<{2 * rank + 1}q", machine.stream.take(16 * rank + 8))
            storage = self._storage(root)
            if storage.dtype is None:
                raise MalformedFile(f"a tensor is made of the quantised storage {storage}")
            size, stride = numbers[:rank], numbers[rank:-1]
            self._add(key, view(storage, storage.dtype, numbers[-1], size, stride, lazy=frozenset()))
        self._close(machine)

    def read_object(self, start: int, stop: int) -> Node:
        """Read the object around the tensors."""
        machine = self._machine(start, stop)
        root = machine.load()
        self._close(machine)
        return root

    def _machine(self, start: int, stop: int) -> Machine:
        return Machine(Stream(self._file.read, start, stop), self._find, storages=self._found)

    def _close(self, machine: Machine) -> None:
        self.created += machine.created
        if machine.stream.remaining:
            raise MalformedFile(f"has {machine.stream.remaining} bytes after the end of a member's content")

    def _find(self, persistent_id: Node) -> Node:
        if isinstance(persistent_id, tuple) and persistent_id:
            return persistent_id[0]  # a class of a pickled module, beside its source text
        text = text_of(persistent_id)
        number = int(text) if text is not None and text.isdigit() and len(text) < 30 else _number(persistent_id)
        if number not in self._found:
            raise MalformedFile(f"the pickle uses object {number}, the archive lacks it")
        return self._found[number]

    def _add(self, key: Node, value: StorageValue | TensorRef) -> None:
        number = _number(key)
        if number in self._found:
            raise MalformedFile(f"the archive has object {number} twice")
        self._found[number] = value

    def _storage(self, key: Node) -> StorageValue:
        number = _number(key)
        found = self._found.get(number)
        if not isinstance(found, StorageValue):
            raise MalformedFile(f"object {number} is used as a storage and is none")
        return found


def _number(key: Node) -> int:
    if type(key) is not int:
        raise MalformedFile("the key of an object is not a number")
    return key


def _count(value: Node) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise MalformedFile("a count of objects is no possible number")
    return value


def _fields(value: Node, count: int) -> tuple[Node, ...]:
    if not isinstance(value, tuple) or len(value) != count:
        raise MalformedFile(f"an object is not described by {count} fields")
    return value
