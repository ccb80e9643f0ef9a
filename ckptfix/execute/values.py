"""The bytes of every output: a plain read is passed on as it lies, all else is computed with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ckptfix.digest import hash_chunks
from ckptfix.errors import Origin
from ckptfix.execute.finite import Count, count, refuse_introduced
from ckptfix.expr import Expr, Initial, Read
from ckptfix.formats.base import CHUNK, Reader, TensorRef
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from torch import Tensor


class Values:
    """Gives the values of expressions over one checkpoint and one target.

    `source_digests` collects the digest of each source tensor that was computed with; `read` and `made` count NaN and
    infinity in those tensors and in what was computed of them. What is passed on has as many as before. `origin_of`
    gives the rule that makes an output, for messages.
    """

    def __init__(
        self,
        tensors: Mapping[str, TensorRef],
        reader: Reader,
        target: Target,
        origin_of: Callable[[str], Origin | None] = lambda key: None,
    ) -> None:
        self._tensors = tensors
        self._reader = reader
        self._target = target
        self._origin_of = origin_of
        self._initial: dict[int, Mapping[str, Tensor]] = {}
        self._counts: dict[str, Count] = {}
        self.source_digests: dict[str, str] = {}
        self.made = Count()

    @property
    def read(self) -> Count:
        """What the source tensors that were computed with hold of NaN and infinity, each tensor once."""
        return sum(self._counts.values(), Count())

    def chunks(self, key: str, expr: Expr) -> Iterator[bytes | memoryview]:
        """Give the bytes of an output in chunks of at most CHUNK, contiguous and little-endian."""
        if isinstance(expr, Read):
            yield from self._reader.chunks(self._tensors[expr.key])
            return
        from ckptfix.execute.evaluate import to_bytes

        data = to_bytes(self.tensor(key, expr))
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]

    def tensor(self, key: str, expr: Expr) -> Tensor:
        """Give the value as a torch tensor on the CPU. Raises NonFinite for NaN and infinity that came from nothing."""
        from ckptfix.execute.evaluate import evaluate, from_bytes

        if isinstance(expr, Read):
            return from_bytes(self._reader.read(self._tensors[expr.key]), expr.spec)
        result = evaluate(expr, self._load, self._initial_values)
        made = count(result)
        refuse_introduced(key, expr, made, self._given, self._origin_of(key))
        self.made += made
        return result

    def _given(self, leaf: Read | Initial) -> Count:
        """Count in a tensor that was computed with."""
        return self._counts[leaf.key] if isinstance(leaf, Read) else count(self._initial_values(leaf.seed)[leaf.key])

    def _load(self, key: str) -> Tensor:
        from ckptfix.execute.evaluate import from_bytes

        data = self._reader.read(self._tensors[key])
        tensor = from_bytes(data, self._tensors[key].spec)
        if key not in self.source_digests:
            self.source_digests[key] = hash_chunks([memoryview(data)])
        if key not in self._counts:
            self._counts[key] = count(tensor)
        return tensor

    def _initial_values(self, seed: int) -> Mapping[str, Tensor]:
        if seed not in self._initial:
            self._initial[seed] = self._target.must_build(seed).state_dict()
        return self._initial[seed]
