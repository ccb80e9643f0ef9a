"""Replay on a parameter's moments what rules did to the parameter, where they only moved or copied its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from ckptfix.errors import RuleError
from ckptfix.execute.resume.optimizer import ParameterId
from ckptfix.expr import Cast, Expr, Read, Rearrange, Take, leaves, sources
from ckptfix.formats.base import Node, Reader, TensorRef
from ckptfix.tensors import TensorSpec

Entry = Mapping[str, Node]
"""What an optimizer keeps of one parameter, by name."""


NewEntry = Mapping[str, Expr | int | float | bool | None]
"""A parameter's new entry: expressions over the tensors of old ones, and plain numbers."""


class Replay:
    """Makes new entries of old ones. `tensors` collects the tensors that the expressions read."""

    def __init__(
        self, path: str, numbers: Mapping[str, ParameterId], entries: Mapping[ParameterId, Entry], reader: Reader
    ) -> None:
        self._path = path
        self._numbers = numbers
        self._entries = entries
        self._reader = reader
        self.tensors: dict[str, TensorRef] = {}

    def entry(self, made: Expr) -> NewEntry:
        """Give the entry of a parameter that was made so. Raises RuleError with the reason why it has none."""
        move = _move(made, lambda read: read)
        parents = sources(move)
        old = [(key, self._entries[self._numbers[key]]) for key in parents if self._numbers.get(key) in self._entries]
        if len(old) < len(parents):
            raise RuleError("the optimizer keeps nothing of its source")
        names = {tuple(entry) for _, entry in old}
        if len(names) > 1:
            raise RuleError("its sources are kept in different ways")
        return {name: self._part(move, name, dict(old)) for name in names.pop()}

    def _part(self, move: Expr, name: str, old: Mapping[str, Entry]) -> Expr | int | float | bool | None:
        """Give one part of the entry: a moment has the shape of its parameter, all else is one value for it."""
        parts = {key: entry[name] for key, entry in old.items()}
        shapes = {leaf.key: leaf.spec.shape for leaf in leaves(move) if isinstance(leaf, Read)}
        moments = {
            key: self._read(key, name, part)
            for key, part in parts.items()
            if isinstance(part, TensorRef) and part.spec.shape == shapes[key]
        }
        if len(moments) == len(parts):
            return _move(move, lambda read: moments[read.key])
        first_key, first = next(iter(parts.items()))
        if isinstance(move, Read) and isinstance(first, TensorRef):
            return self._read(first_key, name, first)  # factored moments go with a parameter that is as it was
        if len({self._plain(part, name) for part in parts.values()}) > 1:
            raise RuleError(f"'{name}' of its sources differs")
        return self._read(first_key, name, first) if isinstance(first, TensorRef) else self._plain(first, name)

    def _read(self, key: str, name: str, ref: TensorRef) -> Read:
        place = f"#{self._path}.state.{self._numbers[key]}.{name}"
        self.tensors[place] = ref
        return Read(place, ref.spec)

    def _plain(self, part: Node, name: str) -> int | float | bool | None:
        """Give a plain value, or the bytes of a 0-d tensor as a number to compare by."""
        if isinstance(part, TensorRef) and part.spec.shape == ():
            return int.from_bytes(self._reader.read(part), "little")
        if part is None or isinstance(part, int | float):
            return part
        raise RuleError(f"'{name}' has no place in a tensor that was made of others")


def _move(expr: Expr, read: Callable[[Read], Read]) -> Expr:
    """Rebuild an expression over other tensors, casts left out: moments keep their own dtype.

    Raises RuleError where the rules did more than to move or copy numbers.
    """
    match expr:
        case Read():
            return read(expr)
        case Cast(source):
            return _move(source, read)
        case Take(source):
            return replace(expr, source=_move(source, read))
        case Rearrange(terms, spec):
            inner = tuple(replace(term, source=_move(term.source, read)) for term in terms)
            dtypes = {term.source.spec.dtype for term in inner}
            if len(dtypes) > 1:
                raise RuleError("its sources are kept in different dtypes")
            return replace(expr, terms=inner, spec=TensorSpec(spec.shape, dtypes.pop()))
        case _:
            raise RuleError("computed anew by a rule" if sources(expr) else "made anew by a rule")
