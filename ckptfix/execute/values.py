"""The bytes of every output: what is only moved or cast passes in blocks, all else is computed with torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ckptfix.digest import hash_chunks
from ckptfix.errors import Origin
from ckptfix.execute.cast import Casting
from ckptfix.execute.finite import Count, count, count_in, refuse_introduced
from ckptfix.execute.moves import Move, move_of
from ckptfix.expr import Expr, Initial, Read
from ckptfix.formats.base import CHUNK, Chunks, Reader, TensorRef
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from torch import Tensor


class Values:
    """Gives the values of expressions over one checkpoint and one target. Several threads may ask for what is moved.

    `source_digests` collects the digest of each source tensor that was computed with; `read` and `made` count NaN and
    infinity in what was cast or computed with, and in what was made of it. What is moved has as many as before.
    `origin_of` gives the rule that makes an output, for messages.
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
        self._cast = Count()
        self._lock = threading.Lock()
        self.source_digests: dict[str, str] = {}
        self.made = Count()

    @property
    def read(self) -> Count:
        """What the source tensors that were computed with hold of NaN and infinity, each tensor once."""
        return sum(self._counts.values(), self._cast)

    def move(self, expr: Expr) -> Move | None:
        """Understand an expression as a move; None where it must be computed."""
        return move_of(expr, self._tensors)

    def moved(
        self, key: str, expr: Expr, move: Move, before: Callable[[Chunks], Chunks] = lambda chunks: chunks
    ) -> Chunks:
        """Give the bytes of an output that is moved, contiguous and little-endian, in chunks.

        `before` is shown those that are about to be cast. Each lasts until the next is asked for. Raises NonFinite for
        what becomes infinite by a cast.
        """
        chunks = before(self._reader.passing(move.ref))
        if not move.casts:
            yield from chunks
            return
        casting = Casting((move.ref.spec.dtype, *move.casts))
        yield from casting.chunks(chunks)
        refuse_introduced(key, expr, casting.made, lambda leaf: casting.read, self._origin_of(key))
        with self._lock:
            self._cast += casting.read
            self.made += casting.made

    def computed(self, key: str, expr: Expr) -> Chunks:
        """Give the bytes of an output that is computed whole."""
        from ckptfix.execute.evaluate import to_bytes

        data = to_bytes(self._compute(key, expr))
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]

    def tensor(self, key: str, expr: Expr) -> Tensor:
        """Give the value as a torch tensor on the CPU. Raises NonFinite for NaN and infinity that came from nothing."""
        from ckptfix.execute.evaluate import from_bytes

        move = self.move(expr)
        if move is None:
            return self._compute(key, expr)
        data = bytearray()
        for chunk in self.moved(key, expr, move):
            data += chunk
        return from_bytes(data, expr.spec)

    def _compute(self, key: str, expr: Expr) -> Tensor:
        from ckptfix.execute.evaluate import evaluate

        result = evaluate(expr, self._load, self._initial_values)
        made = count_in(result)
        refuse_introduced(key, expr, made, self._given, self._origin_of(key))
        with self._lock:
            self.made += made
        return result

    def _given(self, leaf: Read | Initial) -> Count:
        """Count in a tensor that was computed with."""
        return self._counts[leaf.key] if isinstance(leaf, Read) else count_in(self._initial_values(leaf.seed)[leaf.key])

    def _load(self, key: str) -> Tensor:
        from ckptfix.execute.evaluate import from_bytes

        data = self._reader.read(self._tensors[key])
        if key not in self.source_digests:
            self.source_digests[key] = hash_chunks([memoryview(data)])
        if key not in self._counts:
            self._counts[key] = count(memoryview(data), self._tensors[key].spec.dtype)
        return from_bytes(data, self._tensors[key].spec)

    def _initial_values(self, seed: int) -> Mapping[str, Tensor]:
        if seed not in self._initial:
            self._initial[seed] = self._target.must_build(seed).state_dict()
        return self._initial[seed]
