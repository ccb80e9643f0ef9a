"""Files that no sound writer makes, and the comparison with the real libraries."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import torch

from ckptfix.formats import Checkpoint, Reader

CONTAINERS = {"torch zip": {}, "torch legacy": {"_use_new_zipfile_serialization": False}}
"""The format's name -> what makes torch.save write it."""


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The tensor's elements, contiguous, as torch resolves them."""
    # One element may be "contiguous" with any stride, which `view` refuses.
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    flat.copy_(tensor.detach().resolve_conj().resolve_neg().reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def assert_same(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    """Keys in order, dtypes, shapes, and every byte."""
    assert list(checkpoint.tensors) == list(expected)
    with Reader() as reader:
        for key, tensor in expected.items():
            spec = checkpoint.manifest[key]
            assert spec.shape == tuple(tensor.shape), key
            assert spec.dtype.torch_name == str(tensor.dtype).removeprefix("torch."), key
            assert reader.read(checkpoint.tensors[key]) == bytes_of(tensor), key
        reader.check_unchanged()


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def zip_bytes(pickle: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A container around a pickle, as another zip writer than torch's makes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickle)
        for name, data in (records or {}).items():
            archive.writestr(f"a/{name}", data)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Opcodes of a pickle, written by hand: only so can a test say what no pickler would.


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def integer(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def integers(*values: int) -> bytes:
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(key: str = "0", numel: int = 4, kind: str = "FloatStorage", view: bytes = b"") -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + integer(numel) + view + b"tQ"


def tensor(
    of: bytes | None = None, offset: int = 0, size: bytes | None = None, stride: bytes | None = None, extra: bytes = b""
) -> bytes:
    """`_rebuild_tensor_v2` of four float32 elements, unless told otherwise."""
    parts = (
        storage() if of is None else of,
        integer(offset),
        integers(4) if size is None else size,
        integers(1) if stride is None else stride,
        b"\x89" + name("collections", "OrderedDict") + b")R",
        extra,
    )
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"".join(parts) + b"tR"


def mapping(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def pickle_of(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


RUN_COMMAND = b"cposix\nsystem\n" + b"(" + text("touch pwned-by-pickle") + b"tR"
"""What pickling an object whose `__reduce__` gives `(os.system, ("touch pwned-by-pickle",))` writes."""
