"""The dtypes of tensors as numpy and ml_dtypes have them: what torch is not needed for."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from ckptfix.tensors import DType

if TYPE_CHECKING:
    import numpy as np


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
