"""The elements of tensors as numpy and ml_dtypes have them: what torch is not needed for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from ckptfix.tensors import DType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def is_known(dtype: DType) -> bool:
    """Tell whether numpy or ml_dtypes has a dtype, one element in whole bytes."""
    return dtype.torch_name is not None and dtype.bits >= 8


@cache
def numpy_dtype(dtype: DType) -> np.dtype[np.generic]:
    """Give the dtype that `is_known`; both libraries name it as torch does."""
    import ml_dtypes
    import numpy as np

    return np.dtype(getattr(ml_dtypes, dtype.torch_name or "", dtype.torch_name))


def element(value: float, dtype: DType) -> bytes:
    """Give the bytes of a number, rounded to the dtype."""
    if value == 0 and math.copysign(1, value) > 0:
        return bytes(dtype.bits // 8)
    import numpy as np

    with np.errstate(all="ignore"):
        return np.asarray(value).astype(numpy_dtype(dtype)).tobytes()


def whole_elements(chunks: Iterable[bytes | memoryview], itemsize: int) -> Iterator[bytes | memoryview]:
    """Give the same bytes, cut between elements: what is inflated comes in pieces of any length."""
    rest = b""
    for chunk in chunks:
        whole = rest + bytes(chunk) if rest else chunk
        end = len(whole) - len(whole) % itemsize
        rest = bytes(whole[end:])
        if end:
            yield memoryview(whole)[:end]


def decode(data: bytes | memoryview, dtype: DType) -> NDArray[np.float64]:
    """Give the numbers of whole elements of a dtype that `is_known`, of complex ones the absolute values."""
    import numpy as np

    numbers = np.frombuffer(data, numpy_dtype(dtype))
    if dtype.kind == "complex":
        return np.abs(numbers.astype(np.complex128))
    return widen(numbers).astype(np.float64)


def widen(numbers: NDArray[np.generic]) -> NDArray[np.generic]:
    """Give floats of less than four bytes as float32, which has every one of them and casts to any dtype."""
    import numpy as np

    is_narrow = numbers.dtype.itemsize < 4 and numbers.dtype.kind not in "iub"
    return numbers.astype(np.float32) if is_narrow else numbers
