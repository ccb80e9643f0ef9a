"""Write the `.metadata` of a distributed checkpoint, so that torch unpickles it; no code of torch is run for it.

Format: the dataclasses of torch/distributed/checkpoint/metadata.py, as pickle writes them (protocol 2). What ckptfix
notes of the files is one more attribute of the object, which torch does not look at.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptfix.errors import UnsupportedOutput
from ckptfix.formats.distributed.metadata import ATTRIBUTE, Item
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
    return b"\x80\x02" + b"".join(out.parts) + b"."


def _tensor(out: _Emitter, key: str, spec: TensorSpec) -> None:
    if spec.dtype.torch_name is None or spec.dtype.bits < 8:
        raise UnsupportedOutput(f"'{key}' is {spec.dtype}, which torch cannot save", hint="write .safetensors")
    out.begin(_METADATA, "TensorStorageMetadata")
    out.text("properties")
    out.name(_METADATA, "TensorProperties")
    out.put(b")\x81(")
    out.name("torch", spec.dtype.torch_name)
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
    out.integer(0)
    out.text("offset")
    out.size((0,) * len(spec.shape))
    out.end()
    out.begin("torch.distributed.checkpoint.filesystem", "_StorageInfo")
    out.text("relative_path")
    out.text(item.file)
    out.text("offset")
    out.integer(item.offset)
    out.text("length")
    out.integer(item.nbytes)
    out.end()


class _Emitter:
    """Opcodes of a pickle. A global is named once and then remembered."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._memo: dict[tuple[str, str], int] = {}

    def put(self, data: bytes) -> None:
        self.parts.append(data)

    def name(self, module: str, name: str) -> None:
        if (module, name) in self._memo:
            self.put(b"h" + self._memo[module, name].to_bytes(1, "little"))
            return
        number = self._memo.setdefault((module, name), len(self._memo))
        self.put(f"c{module}\n{name}\n".encode() + b"q" + number.to_bytes(1, "little"))

    def begin(self, module: str, name: str) -> None:
        """Make an object and open its attributes: names and values follow, then `end`."""
        self.name(module, name)
        self.put(b")\x81}(")

    def end(self) -> None:
        self.put(b"ub")

    def text(self, value: str) -> None:
        data = value.encode("utf-8", "surrogatepass")
        self.put(b"X" + len(data).to_bytes(4, "little") + data)

    def integer(self, value: int) -> None:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        self.put(b"\x8a" + len(data).to_bytes(1, "little") + data)

    def size(self, extents: tuple[int, ...]) -> None:
        """Make a torch.Size."""
        self.name("torch", "Size")
        self.put(b"((")
        for extent in extents:
            self.integer(extent)
        self.put(b"ttR")
