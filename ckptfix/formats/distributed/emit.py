"""Write the `.metadata` of a distributed checkpoint, so that torch unpickles it; no code of torch is run for it.

Format: the dataclasses of torch/distributed/checkpoint/metadata.py, as pickle writes them (protocol 2). What ckptfix
notes of the files is one more attribute of the object, which torch does not look at.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptfix.formats.distributed.metadata import ATTRIBUTE, Item
from ckptfix.formats.pickle.writer import PickleWriter, name_in_torch
from ckptfix.tensors import TensorSpec

_METADATA = "torch.distributed.checkpoint.metadata"
_VERSION = "1.0.0"
"""The version that torch has given since it gives one (`CURRENT_DCP_VERSION`)."""


def emit_metadata(
    tensors: Mapping[str, TensorSpec], items: Mapping[str, Item], receipt: str, files: Mapping[str, str]
) -> bytes:
    """Pickle what the folder holds: each tensor whole, in one chunk. `files` gives the digest of each file's receipt.

    Raises UnsupportedOutput for a dtype that torch has not.
    """
    out = _Emitter()
    out.begin(_METADATA, "Metadata")
    out.text("state_dict_metadata")
    out.put(b"}(")
    for key, spec in tensors.items():
        out.text(key)
        _tensor(out, key, spec)
    out.put(b"u")
    out.text("planner_data")
    out.put(b"}(")
    for key in tensors:
        out.text(key)
        out.put(b"(")
        out.text(key)
        out.put(b"t")
    out.put(b"u")
    out.text("storage_data")
    out.put(b"}(")
    for key, spec in tensors.items():
        _place(out, key, spec, items[key])
    out.put(b"u")
    out.text("storage_meta")
    out.put(b"N")
    out.text("version")
    out.text(_VERSION)
    out.text(ATTRIBUTE)
    out.put(b"}(")
    out.text("receipt")
    out.text(receipt)
    out.text("files")
    out.put(b"}(")
    for name, digest in files.items():
        out.text(name)
        out.text(digest)
    out.put(b"uu")
    out.end()
    return b"\x80\x02" + out.data + b"."


def _tensor(out: _Emitter, key: str, spec: TensorSpec) -> None:
    dtype = name_in_torch(key, spec)
    out.begin(_METADATA, "TensorStorageMetadata")
    out.text("properties")
    out.name(_METADATA, "TensorProperties")
    out.put(b")\x81(")
    out.name("torch", dtype)
    out.name("torch.serialization", "_get_layout")
    out.text("torch.strided")
    out.put(b"\x85R\x89")
    out.name(_METADATA, "_MEM_FORMAT_ENCODING")
    out.put(b"K\0\x85R\x89tb")
    out.text("size")
    out.size(spec.shape)
    out.text("chunks")
    out.put(b"](")
    out.begin(_METADATA, "ChunkStorageMetadata")
    out.text("offsets")
    out.size((0,) * len(spec.shape))
    out.text("sizes")
    out.size(spec.shape)
    out.end()
    out.put(b"e")
    out.end()


def _place(out: _Emitter, key: str, spec: TensorSpec, item: Item) -> None:
    out.begin(_METADATA, "MetadataIndex")
    out.text("fqn")
    out.text(key)
    out.text("index")
    out.long(0)
    out.text("offset")
    out.size((0,) * len(spec.shape))
    out.end()
    out.begin("torch.distributed.checkpoint.filesystem", "_StorageInfo")
    out.text("relative_path")
    out.text(item.file)
    out.text("offset")
    out.long(item.offset)
    out.text("length")
    out.long(item.nbytes)
    out.end()


class _Emitter(PickleWriter):
    def begin(self, module: str, name: str) -> None:
        """Make an object and open its attributes: names and values follow, then `end`."""
        self.name(module, name)
        self.put(b")\x81}(")

    def end(self) -> None:
        """Close the attributes of an object."""
        self.put(b"ub")

    def size(self, extents: tuple[int, ...]) -> None:
        """Make a torch.Size."""
        self.name("torch", "Size")
        self.put(b"((")
        for extent in extents:
            self.long(extent)
        self.put(b"ttR")
