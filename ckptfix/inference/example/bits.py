"""The numbers of tensors as bit patterns, in the dtype of another tensor, so that equal means equal to the bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptfix.formats import Checkpoint, Reader
from ckptfix.tensors import DType

Bits = NDArray[np.unsignedinteger[Any]]
Hashes = NDArray[np.uint64]
Numbers = NDArray[np.floating[Any]]

_CACHE = 1 << 28
"""Bytes of tensors that are kept, beside the one that is worked on."""
_CHUNK = 1 << 20
_UNSIGNED: dict[int, np.dtype[np.unsignedinteger[Any]]] = {
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}
_FLOATS: dict[DType, np.dtype[np.floating[Any]]] = {
    DType.F16: np.dtype("<f2"),
    DType.F32: np.dtype("<f4"),
    DType.F64: np.dtype("<f8"),
}


class Tensors:
    """Reads the tensors of a checkpoint as bit patterns; the last ones are kept."""

    def __init__(self, checkpoint: Checkpoint, reader: Reader) -> None:
        self.manifest = checkpoint.manifest
        self._refs = checkpoint.tensors
        self._reader = reader
        self._kept: OrderedDict[tuple[str, DType], Bits] = OrderedDict()

    def read(self, key: str, dtype: DType) -> Bits | None:
        """Give a tensor cast to a dtype; None where no cast keeps its meaning, or numpy has none."""
        if not can_cast(self.manifest[key].dtype, dtype):
            return None
        if (key, dtype) not in self._kept:
            spec = self.manifest[key]
            raw = np.frombuffer(self._reader.read(self._refs[key]), _UNSIGNED[spec.dtype.bits])
            self._kept[key, dtype] = cast_bits(raw, spec.dtype, dtype).reshape(spec.shape)
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _CACHE:
                self._kept.popitem(last=False)
        self._kept.move_to_end((key, dtype))
        return self._kept[key, dtype]


def can_cast(have: DType, want: DType) -> bool:
    """Tell whether `cast_bits` can turn one dtype into the other."""
    if have is want:
        return have.bits in _UNSIGNED
    castable = {*_FLOATS, DType.BF16}
    return have in castable and want in castable


def cast_bits(bits: Bits, have: DType, want: DType) -> Bits:
    """Cast floats that are given as bit patterns, to the nearest number, ties to even (IEEE 754)."""
    if have is want:
        return bits
    is_brain = have is DType.BF16
    numbers: Numbers = (bits.astype(np.uint32) << 16).view(np.float32) if is_brain else bits.view(_FLOATS[have])
    with np.errstate(over="ignore"):  # beyond the largest number lies infinity
        if want is not DType.BF16:
            return numbers.astype(_FLOATS[want]).view(_UNSIGNED[want.bits])
        single = numbers.astype(np.float32).view(np.uint32)
    rounded = (single + np.uint32(0x7FFF) + ((single >> 16) & np.uint32(1))) >> 16
    quiet = (single >> 16) | np.uint32(0x40)
    is_nan = (single & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, quiet, rounded).astype(np.uint16)


def hash_bits(bits: Bits) -> Hashes:
    """Scatter bit patterns over 64 bits, so that sums of them tell multisets apart (the mixer of SplitMix64)."""
    mixed = bits.astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def hashed_rows(bits: Bits) -> Iterator[tuple[slice, Hashes]]:
    """Hash a tensor a few rows of its first axis at a time."""
    rows = max(_CHUNK // max(bits[:1].size, 1), 1)
    for start in range(0, len(bits), rows):
        part = slice(start, min(start + rows, len(bits)))
        yield part, hash_bits(bits[part])
