"""Arrays of numpy, and the comparison with what is read of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptfix.formats import Checkpoint, Reader

_NUMPY = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]


def assert_same_arrays(checkpoint: Checkpoint, expected: dict[str, Any]) -> None:
    """Keys in order, dtypes, shapes, and every byte, as little-endian in C's order."""
    assert list(checkpoint.tensors) == list(expected)
    with Reader() as reader:
        for key, value in expected.items():
            array = np.asarray(value)
            spec = checkpoint.manifest[key]
            assert spec.shape == array.shape, key
            kind = {"b": "BOOL", "u": "U", "i": "I", "f": "F", "c": "C"}[array.dtype.kind]
            assert str(spec.dtype) == (kind if kind == "BOOL" else f"{kind}{8 * array.dtype.itemsize}"), key
            little = array.astype(array.dtype.newbyteorder("<"))
            assert reader.read(checkpoint.tensors[key]) == little.tobytes("C"), key
        reader.check_unchanged()


def arrays_of_every_kind() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def random(code: str, *shape: int) -> NDArray[Any]:
        dtype = np.dtype(code)
        raw = rng.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
        return (raw & 1 if code == "?" else raw).view(dtype).reshape(shape)

    found: dict[str, Any] = {f"dtype.{code}": random(code, 3, 2) for code in _NUMPY}
    found |= {f"big.{code}": random(f">{code}", 3, 2) for code in _NUMPY if code not in "?u1i1"}
    found |= {f"long.{code}": random(code, 50, 70, 9) for code in _NUMPY}
    return found | {
        "scalar": np.array(3.5),
        "number": np.float32(2.5),
        "number.int": np.int64(-7),
        "empty": np.zeros((3, 0, 2), "f4"),
        "fortran": np.asfortranarray(random("f4", 5, 7, 3)),
        "fortran.long": np.asfortranarray(random(">f4", 90, 80)),
        "transposed": random("f4", 4, 6, 3).transpose(1, 2, 0),
        "sliced": random("f4", 9, 9)[1::2, ::3],
        "matrix": np.matrix([[1.0, 2.0]]),
    }
