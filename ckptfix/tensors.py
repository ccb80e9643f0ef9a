"""What is known of a tensor before its bytes are read: dtype, shape, place in a module."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal

from msgspec import Struct

Shape = tuple[int, ...]
Kind = Literal["float", "complex", "int", "bool"]


_INITIALS: dict[str, Kind] = {"U": "int", "I": "int", "F": "float", "B": "float", "C": "complex"}


class DType(StrEnum):
    """An element type, by the name that safetensors gives it (C128 is torch's alone)."""

    BOOL = "BOOL"
    U8 = "U8"
    I8 = "I8"
    U16 = "U16"
    I16 = "I16"
    U32 = "U32"
    I32 = "I32"
    U64 = "U64"
    I64 = "I64"
    F4 = "F4"
    F6_E2M3 = "F6_E2M3"
    F6_E3M2 = "F6_E3M2"
    F8_E4M3 = "F8_E4M3"
    F8_E5M2 = "F8_E5M2"
    F8_E8M0 = "F8_E8M0"
    F8_E4M3FNUZ = "F8_E4M3FNUZ"
    F8_E5M2FNUZ = "F8_E5M2FNUZ"
    F16 = "F16"
    BF16 = "BF16"
    F32 = "F32"
    F64 = "F64"
    C64 = "C64"
    C128 = "C128"

    @property
    def bits(self) -> int:
        """The width of one element in bits."""
        return _BITS[self]

    @property
    def kind(self) -> Kind:
        """The family in which a cast keeps the meaning of a value."""
        return _KINDS[self]

    @property
    def torch_name(self) -> str | None:
        """The attribute of `torch` that is this dtype; None where torch has none."""
        return _TORCH_NAMES.get(self)

    def can_hold(self, number: float) -> bool:
        """Tell whether an element can be this number; a floating dtype rounds it, the others must have it exactly."""
        if self.kind == "bool":
            return number in (0, 1)
        if self.kind == "int":
            lowest, bits = (0, self.bits) if self.startswith("U") else (-(1 << self.bits - 1), self.bits - 1)
            return float(number).is_integer() and lowest <= number < 1 << bits
        if self is DType.F8_E8M0:
            return 0 < number <= _LARGEST[self]
        if math.isinf(number):
            return self not in _FINITE
        return math.isnan(number) or abs(number) <= _LARGEST[self]

    @classmethod
    def from_text(cls, text: str) -> DType | None:
        """Find a dtype by its own name in any case (`bf16`) or by torch's (`bfloat16`, `torch.bfloat16`)."""
        name = text.removeprefix("torch.")
        return cls._value2member_map_.get(name.upper()) or _FROM_TORCH.get(name)  # type: ignore[return-value]

    @classmethod
    def from_torch_name(cls, name: str) -> DType | None:
        """Find the dtype that torch calls `name` (`float32`, without the `torch.`)."""
        return _FROM_TORCH.get(name)


_BITS = {
    dtype: int(digits)
    for digits, names in {
        "4": "F4",
        "6": "F6_E2M3 F6_E3M2",
        "8": "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        "16": "U16 I16 F16 BF16",
        "32": "U32 I32 F32",
        "64": "U64 I64 F64 C64",
        "128": "C128",
    }.items()
    for dtype in map(DType, names.split())
}
_LARGEST = {
    DType.F4: 6.0,
    DType.F6_E2M3: 7.5,
    DType.F6_E3M2: 28.0,
    DType.F8_E4M3: 448.0,
    DType.F8_E5M2: 57344.0,
    DType.F8_E8M0: 2.0**127,
    DType.F8_E4M3FNUZ: 240.0,
    DType.F8_E5M2FNUZ: 57344.0,
    DType.F16: 65504.0,
    DType.BF16: (2 - 2.0**-7) * 2.0**127,
    DType.F32: (2 - 2.0**-23) * 2.0**127,
    DType.F64: sys.float_info.max,
    DType.C64: (2 - 2.0**-23) * 2.0**127,
    DType.C128: sys.float_info.max,
}
"""The largest finite number (IEEE 754; OCP 8-bit and Microscaling formats; FNUZ: arXiv 2206.02915)."""
_FINITE = {DType.F4, DType.F6_E2M3, DType.F6_E3M2, DType.F8_E4M3, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ}
_KINDS: dict[DType, Kind] = {dtype: "bool" if dtype is DType.BOOL else _INITIALS[dtype[0]] for dtype in DType}
_TORCH_NAMES = {
    DType.BOOL: "bool",
    DType.U8: "uint8",
    DType.I8: "int8",
    DType.U16: "uint16",
    DType.I16: "int16",
    DType.U32: "uint32",
    DType.I32: "int32",
    DType.U64: "uint64",
    DType.I64: "int64",
    DType.F4: "float4_e2m1fn_x2",
    DType.F8_E4M3: "float8_e4m3fn",
    DType.F8_E5M2: "float8_e5m2",
    DType.F8_E8M0: "float8_e8m0fnu",
    DType.F8_E4M3FNUZ: "float8_e4m3fnuz",
    DType.F8_E5M2FNUZ: "float8_e5m2fnuz",
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.F32: "float32",
    DType.F64: "float64",
    DType.C64: "complex64",
    DType.C128: "complex128",
}
_FROM_TORCH = {name: dtype for dtype, name in _TORCH_NAMES.items()}
FLOATS = tuple(dtype for dtype in DType if dtype.kind == "float" and dtype.torch_name and dtype.bits >= 8)
"""The floating dtypes that torch has, whose elements are whole bytes."""


class TensorSpec(Struct, frozen=True, dict=True):
    """The shape (extents, outermost first) and dtype of one tensor."""

    shape: Shape
    dtype: DType

    @cached_property
    def numel(self) -> int:
        """The number of elements; 1 for a 0-d tensor."""
        return math.prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """The bytes of the tensor laid out contiguously; sub-byte elements are packed."""
        return (self.numel * self.dtype.bits + 7) // 8

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"

    def to_json(self) -> dict[str, object]:
        """Give the `{"shape", "dtype"}` object of the JSON documents."""
        return {"shape": list(self.shape), "dtype": str(self.dtype)}


@dataclass(frozen=True)
class Manifest(Mapping[str, TensorSpec]):
    """The tensors of a state dict in their order, and what a module tree adds to them.

    `owners` gives the class of the module that owns a key, `kinds` says param or buffer, `modules` maps a
    module path to its class and arguments, `tied` lists the groups of keys that are one tensor. All four are
    empty for a manifest that was read from a file of weights.
    """

    tensors: Mapping[str, TensorSpec]
    owners: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, Literal["param", "buffer"]] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    tied: tuple[tuple[str, ...], ...] = ()

    def __getitem__(self, key: str) -> TensorSpec:
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def only(self, keys: Iterable[str]) -> Manifest:
        """Give the manifest of some of its tensors."""
        return replace(self, tensors={key: self.tensors[key] for key in keys})

    @property
    def numel(self) -> int:
        """The elements of all tensors together."""
        return sum(spec.numel for spec in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors together."""
        return sum(spec.nbytes for spec in self.tensors.values())

    def to_json(self) -> dict[str, object]:
        """Give the `shapes:` lockfile document."""
        tensors: dict[str, dict[str, object]] = {}
        for key, spec in self.tensors.items():
            tensors[key] = spec.to_json()
            if key in self.owners:
                tensors[key]["module"] = self.owners[key]
            if key in self.kinds:
                tensors[key]["kind"] = self.kinds[key]
        document: dict[str, object] = {"schema_version": 1, "tensors": tensors}
        if self.modules:
            document["modules"] = dict(self.modules)
        if self.tied:
            document["tied"] = [list(group) for group in self.tied]
        return document
