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
        """Give the bytes of the numbers cast, each time in the same place; the chunks may end within a number."""
        import numpy as np

        first, *between, last = map(numpy_dtype, self._dtypes)
        place = np.empty(0, last)
        for chunk in whole_elements(chunks, first.itemsize):
            numbers = np.frombuffer(chunk, first)
            if len(place) < len(numbers):
                place = np.empty(len(numbers), last)
            made = place[: len(numbers)]
            with np.errstate(all="ignore"):  # what overflows is counted
                for dtype in between:
                    numbers = widen(numbers).astype(dtype, copy=False)
                np.copyto(made, widen(numbers), casting="unsafe")
            data = made.view(np.uint8).data
            if found := count(data, self._dtypes[-1]):  # what is not finite stays so
                self.made += found
                self.read += count(chunk, self._dtypes[0])
            yield data
