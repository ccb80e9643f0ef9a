"""`.npz`, a zip archive of arrays by name, and a `.npy` that holds one object around arrays.

Format: numpy/lib/format.py ("NEP 1"). An array is the magic `\\x93NUMPY`, a version, the length of a header (2 bytes,
from version 2 on 4), the header, which is a Python dict of `descr`, `fortran_order` and `shape`, and the elements. An
array of objects holds a pickle instead; it is run as data, like any other (`formats/pickle`).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ckptfix.errors import LimitExceeded, MalformedFile, TruncatedFile, UnknownFormat
from ckptfix.formats.base import Contents, File, Format, Node, Pairs, Storage, TensorRef, check_shape, read_json_object
from ckptfix.formats.pickle import ELEMENTS, WITH_ARRAYS, Machine, Stream, limits, list_opaque, strides_of
from ckptfix.formats.zip.directory import DEFLATED, Entry, read_directory
from ckptfix.formats.zip.first import first_name
from ckptfix.tensors import DType, Shape, TensorSpec

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
"""Bytes of a header: the limit of numpy itself."""

_HEAD = 12 + _MAX_HEADER
_FIELDS = {"descr", "fortran_order", "shape"}


class Npz(Format):
    """One archive of `numpy.savez` or `savez_compressed`: the keys are the names of its members."""

    name = "npz"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the name of the first entry."""
        return (first_name(head) or "").endswith(".npy")

    def open(self, path: Path) -> Contents:
        """Read the directory and the header of each array."""
        machines: list[Machine] = []
        notes: list[str] = []
        with File(path) as file:
            items: list[tuple[Node, Node]] = [
                (name.removesuffix(".npy"), _read_member(file, entry, machines, notes))
                for name, entry in read_directory(file).items()
            ]
        root = Pairs(items)
        created = [value for machine in machines for value in machine.created]
        return Contents(path, self.name, root, opaque=list_opaque(root, created), notes=tuple(notes))


class Npy(Format):
    """One `.npy` of an object: `numpy.save(file, state_dict)`."""

    name = "npy"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the magic bytes."""
        return head.startswith(_MAGIC)

    def open(self, path: Path) -> Contents:
        """Read the pickle. Raises UnknownFormat where the file is an array, which has no key."""
        with File(path) as file:
            header = _Header.read(file.read(0, min(_HEAD, file.size)))
            if not header.holds_objects:
                raise UnknownFormat(
                    "is one array of numpy, without a key", hint="name it: numpy.savez(file, key=array)"
                )
            machine = Machine(Stream(file.read, header.nbytes, file.size, path), _refuse_id, WITH_ARRAYS)
            root = _load(machine)
        return Contents(path, self.name, root, opaque=list_opaque(root, machine.created))


@dataclass(frozen=True)
class _Header:
    """The header of one array. `nbytes` counts all that lies before the elements."""

    descr: object
    fortran: bool
    shape: Shape
    nbytes: int

    @classmethod
    def read(cls, head: bytes) -> _Header:
        """Read it from the first bytes of an array. Raises MalformedFile, LimitExceeded or TruncatedFile."""
        if not head.startswith(_MAGIC):
            raise MalformedFile("is named like an array of numpy and does not begin like one")
        version, width = head[6:8], 2 if head[6:7] == b"\1" else 4
        if version not in (b"\1\0", b"\2\0", b"\3\0"):
            raise MalformedFile(f"has a header of numpy of the unknown version {version.hex('.')}")
        length = int.from_bytes(head[8 : 8 + width], "little")
        if length > _MAX_HEADER:
            raise LimitExceeded(f"has a header of numpy of {length} bytes, {_MAX_HEADER} are allowed")
        raw = head[8 + width : 8 + width + length]
        if len(raw) < length:
            raise TruncatedFile("ends inside the header of numpy", hint="download or copy the file again")
        fields = _parse(raw, "utf-8" if version == b"\3\0" else "latin-1")
        fortran = fields["fortran_order"]
        if not isinstance(fortran, bool):
            raise MalformedFile("has a header of numpy whose fortran_order is neither True nor False")
        return cls(fields["descr"], fortran, check_shape(fields["shape"]), 8 + width + length)

    @property
    def holds_objects(self) -> bool:
        return self.descr in ("O", "|O")

    @property
    def element(self) -> tuple[DType, Literal["little", "big"]] | None:
        """The dtype and byte order of the elements; None where they are no numbers that a tensor has."""
        descr = self.descr
        if not isinstance(descr, str) or descr[:1] not in ("<", ">", "|") or descr[1:] not in ELEMENTS:
            return None
        return ELEMENTS[descr[1:]], "big" if descr.startswith(">") else "little"

    @property
    def holds_text(self) -> bool:
        return isinstance(self.descr, str) and self.descr[1:2] in ("U", "S")


_AS_JSON = str.maketrans("'()", '"[]')
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}


def _parse(raw: bytes, encoding: str) -> dict[str, object]:
    """Read the header, a literal of Python, as the JSON that it becomes with other brackets: nothing is compiled."""
    try:
        text = raw.decode(encoding).strip().translate(_AS_JSON)
        # Python 2 wrote its long integers with an L.
        text = re.sub(r"\b(\d+)L\b", r"\1", text)
        text = re.sub(r"\b(True|False|None)\b", lambda found: _CONSTANTS[found[0]], text)
        fields = read_json_object(re.sub(r",\s*([\]}])", r"\1", text), "the header of numpy")
    except (ValueError, MalformedFile) as error:
        raise MalformedFile("has a header of numpy that is no Python literal of a mapping") from error
    if fields.keys() != _FIELDS:
        raise MalformedFile("has a header of numpy without exactly descr, fortran_order and shape")
    return fields


def _read_member(file: File, entry: Entry, machines: list[Machine], notes: list[str]) -> Node:
    """Give the tensor or the object that a member is; None for what is neither."""
    if not entry.name.endswith(".npy"):
        return None
    try:
        header = _Header.read(_head(file, entry))
        if header.holds_objects:
            machines.append(Machine(_pickle_of(file, entry, header.nbytes), _refuse_id, WITH_ARRAYS))
            return _load(machines[-1])
        if header.element is None:
            # A damaged header must not make a tensor disappear.
            entry.check(entry.crc_of(file, limits.PICKLE_NBYTES))
            if not header.holds_text:
                notes.append(f"{entry.name} holds elements of the dtype {header.descr!s:.60}, which no tensor has")
            return None
        return _place(file, entry, header, *header.element)
    except (MalformedFile, LimitExceeded, TruncatedFile) as error:
        named = error.message if entry.name in error.message else f"{entry.name}: {error.message}"
        raise type(error)(named, hint=error.hint) from error


def _place(file: File, entry: Entry, header: _Header, dtype: DType, order: Literal["little", "big"]) -> TensorRef:
    spec = TensorSpec(header.shape, dtype)
    if header.nbytes + spec.nbytes != entry.nbytes:
        raise MalformedFile(f"{spec} takes {spec.nbytes} bytes, the member has {entry.nbytes - header.nbytes}")
    storage = Storage(
        file.path,
        entry.offset,
        spec.nbytes,
        entry.stored_nbytes,
        "deflate" if entry.method == DEFLATED else "raw",
        order,
        entry.crc32,
        skip=header.nbytes,
    )
    return TensorRef(spec, storage, 0, strides_of(spec.shape, "F" if header.fortran else "C"))


def _head(file: File, entry: Entry) -> bytes:
    """Read the first decoded bytes of a member, enough for any header."""
    if entry.method != DEFLATED:
        return file.read(entry.offset, min(_HEAD, entry.nbytes))
    try:
        # Deflate makes nothing longer by more than a few bytes in a thousand, and its tables.
        packed = file.read(entry.offset, min(_HEAD + 4096, entry.stored_nbytes))
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, _HEAD)
    except zlib.error as error:
        raise MalformedFile(f"broken deflate stream: {error}") from error


def _pickle_of(file: File, entry: Entry, start: int) -> Stream:
    """Read the pickle of a member, which is checked whole: arrays in it have no checksum of their own."""
    data = entry.read(file, limits.PICKLE_NBYTES)
    entry.check(zlib.crc32(data))
    if entry.method == DEFLATED:
        return Stream.over(data[start:])
    return Stream.within(data[start:], entry.offset + start, file.path)


def _load(machine: Machine) -> Node:
    root = machine.load()
    if machine.stream.remaining:
        raise MalformedFile(f"has {machine.stream.remaining} bytes after its pickle")
    return root


def _refuse_id(persistent_id: Node) -> Node:
    raise MalformedFile("the pickle refers to storages that are not in it")
