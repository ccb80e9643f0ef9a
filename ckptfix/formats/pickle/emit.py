"""Write the pickle of a state dict, or of a frame around several: tensors over storages, as `torch.save` lays it down.

Protocol 2. The calls are those of torch/_tensor.py (`_reduce_ex_internal`), so `torch.load` reads it with
`weights_only=True`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ckptfix.formats.base import Frame, Slot, contiguous_stride
from ckptfix.formats.pickle.writer import PickleWriter, name_in_torch
from ckptfix.tensors import DType, TensorSpec

_STORAGES = {
    DType.F64: "DoubleStorage",
    DType.F32: "FloatStorage",
    DType.F16: "HalfStorage",
    DType.BF16: "BFloat16Storage",
    DType.I64: "LongStorage",
    DType.I32: "IntStorage",
    DType.I16: "ShortStorage",
    DType.I8: "CharStorage",
    DType.U8: "ByteStorage",
    DType.BOOL: "BoolStorage",
    DType.C64: "ComplexFloatStorage",
    DType.C128: "ComplexDoubleStorage",
}
"""The dtypes that had storages of their own; younger ones name their dtype and use an untyped storage."""


def emit(frame: Frame, tensors: Mapping[str, TensorSpec], storages: Mapping[str, str]) -> bytes:
    """Pickle a frame of contiguous tensors. `storages` gives the record name of each key's storage.

    Raises UnsupportedOutput for a dtype that torch has not.
    """
    emitter = _Emitter(tensors, storages)
    emitter.put(b"\x80\x02")
    emitter.value(frame)
    emitter.put(b".")
    return bytes(emitter.data)


class _Emitter(PickleWriter):
    def __init__(self, tensors: Mapping[str, TensorSpec], storages: Mapping[str, str]) -> None:
        super().__init__()
        self._tensors = tensors
        self._storages = storages

    def value(self, frame: Frame) -> None:
        match frame:
            case Slot(key):
                self.tensor(key, self._tensors[key], self._storages[key])
            case None:
                self.put(b"N")
            case bool():
                self.put(b"\x88" if frame else b"\x89")
            case int():
                self.integer(frame)
            case float():
                self.put(b"G" + struct.pack(">d", frame))
            case str():
                self.text(frame)
            case dict():
                self.put(b"}(")
                for name, part in frame.items():
                    self.value(name)
                    self.value(part)
                self.put(b"u")
            case list():
                self.put(b"](")
                for part in frame:
                    self.value(part)
                self.put(b"e")
            case tuple():
                self.put(b"(")
                for part in frame:
                    self.value(part)
                self.put(b"t")

    def integer(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self.put(b"K" + value.to_bytes(1, "little"))
        elif -1 << 31 <= value < 1 << 31:
            self.put(b"J" + value.to_bytes(4, "little", signed=True))
        else:
            self.long(value)

    def integers(self, values: tuple[int, ...]) -> None:
        self.put(b"(")
        for value in values:
            self.integer(value)
        self.put(b"t")

    def tensor(self, key: str, spec: TensorSpec, storage: str) -> None:
        """Call the rebuild function on (storage, offset, size, stride, requires_grad, hooks[, dtype])."""
        typed = _STORAGES.get(spec.dtype)
        dtype = name_in_torch(key, spec)
        self.name("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        self.put(b"((")
        self.text("storage")
        if typed:
            self.name("torch", typed)
        else:
            self.name("torch.storage", "UntypedStorage")
        self.text(storage)
        self.text("cpu")
        self.integer(spec.numel if typed else spec.nbytes)
        self.put(b"tQK\0")
        self.integers(spec.shape)
        self.integers(contiguous_stride(spec.shape))
        self.put(b"\x89")
        self.name("collections", "OrderedDict")
        self.put(b")R")
        if not typed:
            self.name("torch", dtype)
        self.put(b"tR")
