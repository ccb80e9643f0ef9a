"""The opcodes that every pickle written here is made of. Protocol 2."""

from __future__ import annotations

from ckptfix.errors import UnsupportedOutput
from ckptfix.tensors import TensorSpec


class PickleWriter:
    """Collects opcodes in `data`. A global is named once, and then remembered."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._memo: dict[tuple[str, str], int] = {}

    def put(self, data: bytes) -> None:
        """Add opcodes as they are."""
        self.data += data

    def name(self, module: str, name: str) -> None:
        """Name a global; the second time by reference."""
        if (module, name) in self._memo:
            self.put(b"h" + self._memo[module, name].to_bytes(1, "little"))
            return
        number = self._memo.setdefault((module, name), len(self._memo))
        self.put(f"c{module}\n{name}\n".encode() + b"q" + number.to_bytes(1, "little"))

    def text(self, value: str) -> None:
        """Push a text."""
        data = value.encode("utf-8", "surrogatepass")
        self.put(b"X" + len(data).to_bytes(4, "little") + data)

    def long(self, value: int) -> None:
        """Push an integer of any size."""
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        self.put(b"\x8a" + len(data).to_bytes(1, "little") + data)


def name_in_torch(key: str, spec: TensorSpec) -> str:
    """Give torch's name of a tensor's dtype. Raises UnsupportedOutput for one that torch cannot save."""
    if spec.dtype.torch_name is None or spec.dtype.bits < 8:
        raise UnsupportedOutput(f"'{key}' is {spec.dtype}, which torch cannot save", hint="write .safetensors")
    return spec.dtype.torch_name
