"""Cast numbers as they pass, a chunk at a time, and count NaN and infinity before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckptfix.execute.finite import Count, count
from ckptfix.execute.numbers import numpy_dtype, whole_elements, widen
from ckptfix.tensors import DType


class Casting:
    """Casts from the first of some dtypes to the next, and on to the last; each rounds to nearest, ties to even.

    `read` and `made` count in what has passed.
    """

    def __init__(self, dtypes: Sequence[DType]) -> None:
        self._dtypes = dtypes
        self.read = Count()
        self.made = Count()

    def chunks(self, chunks: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
        """Give the bytes of the numbers cast; the chunks may end within a number."""
        import numpy as np

        first, *others = map(numpy_dtype, self._dtypes)
        for chunk in whole_elements(chunks, first.itemsize):
            numbers = np.frombuffer(chunk, first)
            with np.errstate(all="ignore"):  # what overflows is counted
                for dtype in others:
                    numbers = widen(numbers).astype(dtype, copy=False)
            data = numbers.view(np.uint8).data
            if made := count(data, self._dtypes[-1]):  # what is not finite stays so
                self.made += made
                self.read += count(chunk, self._dtypes[0])
            yield data
