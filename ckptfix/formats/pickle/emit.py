"""Write the pickle of a flat state dict: a dict of tensors over storages, as `torch.save` lays it down.

Protocol 2. The calls are those of torch/_tensor.py (`_reduce_ex_internal`), so `torch.load` reads it with
`weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptfix.errors import UnsupportedOutput
from ckptfix.formats.base import contiguous_stride
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


def emit_state_dict(tensors: Mapping[str, TensorSpec], storages: Mapping[str, str]) -> bytes:
    """Pickle a dict of contiguous tensors. `storages` gives the record name of each key's storage.

    Raises UnsupportedOutput for a dtype that torch has not.
    """
    emitter = _Emitter()
    emitter.put(b"\x80\x02}(")
    for key, spec in tensors.items():
        emitter.text(key)
        emitter.tensor(key, spec, storages[key])
    emitter.put(b"u.")
    return b"".join(emitter.parts)


class _Emitter:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._memo: dict[tuple[str, str], int] = {}

    def put(self, data: bytes) -> None:
        self.parts.append(data)

    def text(self, value: str) -> None:
        data = value.encode("utf-8", "surrogatepass")
        self.put(b"X" + len(data).to_bytes(4, "little") + data)

    def integer(self, value: int) -> None:
        if value < 1 << 8:
            self.put(b"K" + value.to_bytes(1, "little"))
        elif value < 1 << 31:
            self.put(b"J" + value.to_bytes(4, "little"))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little")
            self.put(b"\x8a" + len(data).to_bytes(1, "little") + data)

    def integers(self, values: tuple[int, ...]) -> None:
        self.put(b"(")
        for value in values:
            self.integer(value)
        self.put(b"t")

    def name(self, module: str, name: str) -> None:
        """Name a global; the second time by reference."""
        if (module, name) in self._memo:
            self.put(b"h" + self._memo[module, name].to_bytes(1, "little"))
            return
        number = self._memo.setdefault((module, name), len(self._memo))
        self.put(f"c{module}\n{name}\n".encode() + b"q" + number.to_bytes(1, "little"))

    def tensor(self, key: str, spec: TensorSpec, storage: str) -> None:
        """Call the rebuild function on (storage, offset, size, stride, requires_grad, hooks[, dtype])."""
        typed = _STORAGES.get(spec.dtype)
        if spec.dtype.torch_name is None or spec.dtype.bits < 8:
            raise UnsupportedOutput(f"'{key}' is {spec.dtype}, which torch cannot save", hint="write .safetensors")
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
            self.name("torch", spec.dtype.torch_name)
        self.put(b"tR")
