"""Read the members of an `.npz`, and the object of a `.npy`, whose pickles are run as data (`formats/pickle`)."""

from __future__ import annotations

import zlib
from typing import Literal

from ckptfix.errors import LimitExceeded, MalformedFile, TruncatedFile, UnknownFormat
from ckptfix.formats.base import File, Node, Opaque, Pairs, Storage, TensorRef
from ckptfix.formats.npy.header import HEAD, Header
from ckptfix.formats.pickle import limits
from ckptfix.formats.pickle.arrays import strides_of
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.calls import WITH_ARRAYS
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.zip.directory import DEFLATED, Entry, read_directory
from ckptfix.tensors import DType, TensorSpec


def read_archive(file: File) -> tuple[Node, tuple[tuple[str, Opaque], ...], tuple[str, ...]]:
    """Give the arrays by the names of their members, the opaque values with their places, and notes."""
    machines: list[Machine] = []
    notes: list[str] = []
    items: list[tuple[Node, Node]] = [
        (name.removesuffix(".npy"), _read_member(file, entry, machines, notes))
        for name, entry in read_directory(file).items()
    ]
    root = Pairs(items)
    created = [value for machine in machines for value in machine.created]
    return root, list_opaque(root, created), tuple(notes)


def read_object(file: File) -> tuple[Node, tuple[tuple[str, Opaque], ...]]:
    """Give the object, and its opaque values with their places. Raises UnknownFormat for an array, which has no key."""
    header = Header.read(file.read(0, min(HEAD, file.size)))
    if not header.holds_objects:
        raise UnknownFormat("is one array of numpy, without a key", hint="name it: numpy.savez(file, key=array)")
    machine = Machine(Stream(file.read, header.nbytes, file.size, file.path), _refuse_id, WITH_ARRAYS)
    root = _load(machine)
    return root, list_opaque(root, machine.created)


def _read_member(file: File, entry: Entry, machines: list[Machine], notes: list[str]) -> Node:
    """Give the tensor or the object that a member is; None for what is neither."""
    if not entry.name.endswith(".npy"):
        return None
    try:
        header = Header.read(_head(file, entry))
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


def _place(file: File, entry: Entry, header: Header, dtype: DType, order: Literal["little", "big"]) -> TensorRef:
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
        return file.read(entry.offset, min(HEAD, entry.nbytes))
    try:
        # Deflate makes nothing longer by more than a few bytes in a thousand, and its tables.
        packed = file.read(entry.offset, min(HEAD + 4096, entry.stored_nbytes))
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, HEAD)
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
