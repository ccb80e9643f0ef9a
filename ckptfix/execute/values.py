"""The bytes of every output: a plain read is passed on as it lies, all else is computed with torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ckptfix.digest import hash_chunks
from ckptfix.expr import Expr, Read
from ckptfix.formats.base import CHUNK, Reader, TensorRef
from ckptfix.targets import Target

if TYPE_CHECKING:
    from torch import Tensor


class Values:
    """Gives the values of expressions over one checkpoint and one target.

    `source_digests` collects the digest of each source tensor that was computed with.
    """

    def __init__(self, tensors: Mapping[str, TensorRef], reader: Reader, target: Target) -> None:
        self._tensors = tensors
        self._reader = reader
        self._target = target
        self._initial: dict[int, Mapping[str, Tensor]] = {}
        self.source_digests: dict[str, str] = {}

    def chunks(self, expr: Expr) -> Iterator[bytes | memoryview]:
        """Give the bytes in chunks of at most CHUNK, contiguous and little-endian."""
        if isinstance(expr, Read):
            yield from self._reader.chunks(self._tensors[expr.key])
            return
        from ckptfix.execute.evaluate import to_bytes

        data = to_bytes(self.tensor(expr))
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]

    def tensor(self, expr: Expr) -> Tensor:
        """Give the value as a torch tensor on the CPU."""
        from ckptfix.execute.evaluate import evaluate

        return evaluate(expr, self._load, self._initial_values)

    def _load(self, key: str) -> Tensor:
        from ckptfix.execute.evaluate import from_bytes

        data = self._reader.read(self._tensors[key])
        if key not in self.source_digests:
            self.source_digests[key] = hash_chunks([memoryview(data)])
        return from_bytes(data, self._tensors[key].spec)

    def _initial_values(self, seed: int) -> Mapping[str, Tensor]:
        if seed not in self._initial:
            self._initial[seed] = self._target.must_build(seed).state_dict()
        return self._initial[seed]
