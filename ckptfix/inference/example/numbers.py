"""Numbers that bit patterns stand for."""

from __future__ import annotations

import numpy as np

from ckptfix.inference.example.bits import Bits, cast_bits
from ckptfix.tensors import DType


def number_of(bits: Bits, dtype: DType) -> float:
    """Give the number that all elements are; 0 for a tensor without any."""
    if not bits.size:
        return 0.0
    first = np.ascontiguousarray(bits.reshape(-1)[:1])
    if dtype.kind == "float":
        return float(cast_bits(first, dtype, DType.F64).view(np.float64)[0])
    signed = dtype.startswith("I")
    return int(first.view(f"<i{first.itemsize}" if signed else first.dtype)[0])
