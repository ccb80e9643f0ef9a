"""Cast numbers as they pass, a chunk at a time, and count NaN and infinity before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckptfix.execute.finite import Count, count
from ckptfix.execute.numbers import numpy_dtype
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
        for chunk in _whole(chunks, first.itemsize):
            numbers = np.frombuffer(chunk, first)
            with np.errstate(all="ignore"):  # what overflows is counted
                for dtype in others:
                    if numbers.dtype.itemsize < 4:  # float32 has every one of these, and casts to any other dtype
                        numbers = numbers.astype(np.float32)
                    numbers = numbers.astype(dtype, copy=False)
            data = numbers.view(np.uint8).data
            if made := count(data, self._dtypes[-1]):  # what is not finite stays so
                self.made += made
                self.read += count(chunk, self._dtypes[0])
            yield data


def _whole(chunks: Iterable[bytes | memoryview], itemsize: int) -> Iterator[bytes | memoryview]:
    """Cut chunks between numbers."""
    left = b""
    for chunk in chunks:
        whole = left + bytes(chunk) if left else chunk
        over = len(whole) % itemsize
        left = bytes(whole[len(whole) - over :])
        if len(whole) > over:
            yield memoryview(whole)[: len(whole) - over]
