"""Numbers of the bytes of a tensor, with numpy: a few of its elements at a time, and without torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ckptfix.tensors import DType

Numbers = NDArray[np.float64]

_NUMPY = {
    DType.BOOL: "?",
    DType.U8: "<u1",
    DType.I8: "<i1",
    DType.U16: "<u2",
    DType.I16: "<i2",
    DType.U32: "<u4",
    DType.I32: "<i4",
    DType.U64: "<u8",
    DType.I64: "<i8",
    DType.F16: "<f2",
    DType.F32: "<f4",
    DType.F64: "<f8",
}
_PARTS = {DType.C64: "<f4", DType.C128: "<f8"}

_EIGHTHS = {
    DType.F8_E4M3: (3, 7, {0x7F, 0xFF}),
    DType.F8_E5M2: (2, 15, {*range(0x7D, 0x80), *range(0xFD, 0x100)}),
    DType.F8_E4M3FNUZ: (3, 8, {0x80}),
    DType.F8_E5M2FNUZ: (2, 16, {0x80}),
}
"""Bits of the mantissa, bias of the exponent, and the codes of NaN (OCP 8-bit formats; FNUZ: arXiv 2206.02915)."""


def decoder_of(dtype: DType) -> Callable[[bytes], Numbers] | None:
    """Give what turns bytes of whole elements into numbers, of complex ones the absolute values.

    None for a dtype whose elements are less than a byte: how they are packed is not said.
    """
    if dtype in _NUMPY:
        return lambda data: np.frombuffer(data, _NUMPY[dtype]).astype(np.float64)
    if dtype in _PARTS:
        return lambda data: _absolute(np.frombuffer(data, _PARTS[dtype]).astype(np.float64))
    if dtype is DType.BF16:
        return lambda data: (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype in _EIGHTHS or dtype is DType.F8_E8M0:
        return lambda data: _eighths(dtype)[np.frombuffer(data, np.uint8)]
    return None


def _absolute(parts: Numbers) -> Numbers:
    found: Numbers = np.hypot(parts[::2], parts[1::2])
    return found


@cache
def _eighths(dtype: DType) -> Numbers:
    """Give the number of each of the 256 codes."""
    if dtype is DType.F8_E8M0:
        return np.array([*(2.0 ** (code - 127) for code in range(255)), np.nan])
    mantissa, bias, nan = _EIGHTHS[dtype]
    numbers = np.array([np.nan if code in nan else _eighth(code, mantissa, bias) for code in range(256)])
    if dtype is DType.F8_E5M2:
        numbers[[0x7C, 0xFC]] = np.inf, -np.inf
    return numbers


def _eighth(code: int, mantissa: int, bias: int) -> float:
    exponent, rest = (code & 0x7F) >> mantissa, code & ((1 << mantissa) - 1)
    whole = rest + (1 << mantissa if exponent else 0)
    return (-1.0 if code & 0x80 else 1.0) * whole * 2.0 ** (max(exponent, 1) - bias - mantissa)
