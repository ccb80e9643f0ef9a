"""The `.metadata` of a distributed checkpoint, read from its pickle without running it.

Format: torch/distributed/checkpoint/metadata.py (`Metadata`, `MetadataIndex`) and filesystem.py (`_StorageInfo`). It
says of each key whether it is a tensor, with its shape, dtype and chunks, or bytes; and of each chunk, by key and
offsets, which bytes of which file hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from msgspec import Struct, field

from ckptfix.errors import LimitExceeded, MalformedFile, UnknownFormat
from ckptfix.formats.base import MAX_NBYTES, Node, Opaque, Pairs, check_shape
from ckptfix.formats.distributed.boxes import Box
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.globals import CONSTRUCTORS, dtype_of, is_known
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import Unbuilt
from ckptfix.tensors import DType, Shape

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

ATTRIBUTE = "ckptfix"
"""What ckptfix notes in the metadata that it writes: the receipt, and the digest of each file's own."""

MAX_STEPS = 100
"""Containers that a value of the saved state dict may lie in."""

_METADATA = "torch.distributed.checkpoint.metadata"
_FILES = "torch.distributed.checkpoint.filesystem"

_OURS = {
    _METADATA: {
        "Metadata",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "TensorProperties",
        "_MEM_FORMAT_ENCODING",
        "ChunkStorageMetadata",
        "MetadataIndex",
        "StorageMeta",
    },
    _FILES: {"_StorageInfo"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "WindowsPath"},
}
"""What the pickle of every distributed checkpoint makes, and what is data like the rest."""

Step = str | int


class Where(NamedTuple):
    """A key, and the offsets of a chunk of it; None for bytes."""

    key: str
    offsets: tuple[int, ...] | None


class Saved(Struct, frozen=True):
    """A tensor that was saved: its dtype is None where it is none that is known here."""

    shape: Shape
    dtype: DType | None
    chunks: tuple[Box, ...]


class Item(NamedTuple):
    """The bytes that hold a chunk or an object: a run of a file beside the metadata."""

    file: str
    offset: int
    nbytes: int


class Metadata(Struct, frozen=True):
    """What the folder holds: under each key a tensor, or None for an object; where each item lies; what was saved
    inside what."""

    values: Mapping[str, Saved | None]
    items: Mapping[Where, Item]
    paths: Mapping[str, tuple[Step, ...]]
    opaque: tuple[tuple[str, Opaque], ...]
    receipt: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    """What ckptfix noted: the receipt of the whole, and the digest of each file's own."""


def read_metadata(data: bytes, held: int) -> Metadata:
    """Read the pickle of a folder whose files hold so many bytes.

    Raises UnknownFormat for one of something else, MalformedFile for one that is not sound.
    """
    # Every tensor has its description here, of a few hundred bytes; small ones are kept together as one.
    machine = Machine(Stream.over(data), _refuse, _CONSTRUCTORS, storages=range(held >> 10))
    root = machine.load()
    if machine.stream.position != len(data):
        raise MalformedFile("has bytes after its pickle")
    fields = _fields(root)
    values, items = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(root, Opaque) or not isinstance(values, Pairs):
        raise UnknownFormat("is a pickle, but not the metadata of a distributed checkpoint")
    if not isinstance(items, Pairs):
        raise MalformedFile("the metadata do not say where the tensors lie")
    unknown = [
        value for value in machine.created if value.name not in _OURS.get(value.module, ()) and not is_known(value)
    ]
    return Metadata(
        _unique([(_text(key), _read_value(value)) for key, value in values.items]),
        _unique([_check_place(where, item) for where, item in items.items]),
        _read_paths(fields.get("planner_data")),
        # Looking for the place of each takes as long as all the rest.
        list_opaque(root, unknown) if unknown else (),
        *_read_noted(fields.get(ATTRIBUTE)),
    )


def _refuse(persistent_id: Node) -> Node:
    raise MalformedFile("the metadata refer to something outside of themselves")


def _fields(value: Node) -> dict[str, Node]:
    """Give the attributes of an object; none for what is no object."""
    return _attributes(value.state) if isinstance(value, Opaque) else {}


def _attributes(state: Node) -> dict[str, Node]:
    return {key: field for key, field in state.items if isinstance(key, str)} if isinstance(state, Pairs) else {}


def _unique(pairs: list[tuple[_Key, _Value]]) -> dict[_Key, _Value]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedFile("the metadata have an entry twice")
    return found


def _text(value: Node) -> str:
    if not isinstance(value, str):
        raise MalformedFile("the metadata have a key that is not text")
    return value


def _read_value(value: Node) -> Saved | None:
    if isinstance(value, Opaque) and value.name == "BytesStorageMetadata":
        return None
    fields = _fields(value)
    properties, chunks = fields.get("properties"), fields.get("chunks")
    if not isinstance(properties, Opaque) or not isinstance(chunks, list):
        raise MalformedFile("the metadata describe a value as neither a tensor nor bytes")
    state = properties.state
    dtype = state[0] if isinstance(state, tuple) and state else _fields(properties).get("dtype")
    boxes = tuple(chunk for chunk in chunks if isinstance(chunk, Box))
    if len(boxes) < len(chunks):
        raise MalformedFile("the metadata have a chunk that is none")
    return Saved(check_shape(fields.get("size")), dtype_of(dtype), boxes)


def _check_place(where: Node, item: Node) -> tuple[Where, Item]:
    if not isinstance(where, Where) or not isinstance(item, Item):
        raise MalformedFile("the metadata do not say where an item lies")
    return where, item


def _read_box(state: Node) -> Box:
    fields = _attributes(state)
    return Box(check_shape(fields.get("offsets")), check_shape(fields.get("sizes")))


def _read_index(state: Node) -> Where:
    fields = _attributes(state)
    offset = fields.get("offset")
    return Where(_text(fields.get("fqn")), None if offset is None else check_shape(offset))


def _read_item(state: Node) -> Item:
    fields = _attributes(state)
    file, offset, nbytes = fields.get("relative_path"), fields.get("offset"), fields.get("length")
    if fields.get("transform_descriptors"):
        raise UnknownFormat("its files are transformed, by a compressor or the like, in a way that ckptfix cannot undo")
    if not isinstance(file, str) or type(offset) is not int or type(nbytes) is not int:
        raise MalformedFile("the metadata do not say where an item lies")
    if not (0 <= offset <= MAX_NBYTES and 0 <= nbytes <= MAX_NBYTES):
        raise MalformedFile("an item lies at no possible place of its file")
    return Item(file, offset, nbytes)


def _read_paths(value: Node) -> dict[str, tuple[Step, ...]]:
    """Read the way to each key's value in what was saved: `{"model.w": ("model", "w")}`; empty where it is unknown."""
    paths: dict[str, tuple[Step, ...]] = {}
    for key, path in value.items if isinstance(value, Pairs) else ():
        if isinstance(key, str) and isinstance(path, list | tuple):
            steps = tuple(step for step in path if isinstance(step, str | int))
            if len(steps) > MAX_STEPS:
                raise LimitExceeded(f"a value lies in {len(steps)} containers, {MAX_STEPS} are allowed")
            if steps and len(steps) == len(path):
                paths[key] = steps
    return paths


def _read_noted(value: Node) -> tuple[str | None, dict[str, str]]:
    if value is None:
        return None, {}
    noted = dict(_texts(value))
    receipt, files = noted.get("receipt"), noted.get("files")
    if not isinstance(receipt, str):
        raise MalformedFile("the metadata have a receipt that is not what ckptfix writes")
    return receipt, {name: digest for name, digest in _texts(files) if isinstance(digest, str)}


def _texts(value: Node) -> list[tuple[str, Node]]:
    pairs = value.items if isinstance(value, Pairs) else []
    return [(key, item) for key, item in pairs if isinstance(key, str)]


def _begin(name: str, build: Callable[[Node], Node], args: tuple[Node, ...]) -> Node:
    """Begin an object of which each chunk has some: it becomes a small value once its attributes are known."""
    return None if args else Unbuilt(_METADATA, name, build=build)


_CONSTRUCTORS = CONSTRUCTORS | {
    (_METADATA, "ChunkStorageMetadata"): partial(_begin, "ChunkStorageMetadata", _read_box),
    (_METADATA, "MetadataIndex"): partial(_begin, "MetadataIndex", _read_index),
    (_FILES, "_StorageInfo"): partial(_begin, "_StorageInfo", _read_item),
}
