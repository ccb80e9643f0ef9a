"""The account of a plan: what becomes of every source tensor and every target tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from ckptfix.errors import CkptfixError
from ckptfix.planning.table import Collision
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:
    from ckptfix.planning.documents import ErrorDocument, MissingDocument, PairDocument, ReportDocument, SpecDocument


class Pair(Struct, frozen=True):
    """A key with the tensor at hand and the one that is wanted."""

    key: str
    have: TensorSpec
    want: TensorSpec


class Missing(Struct, frozen=True):
    """A target key that nothing provides, the keys that read most like it, and what would mend it."""

    key: str
    want: TensorSpec
    nearest: tuple[str, ...] = ()
    hint: str | None = None


class Unexpected(Struct, frozen=True):
    """A tensor that the target does not know, and the source keys that it comes from."""

    key: str
    sources: tuple[str, ...]
    have: TensorSpec
    nearest: tuple[str, ...] = ()


class Report(Struct, frozen=True):
    """The account: compatible only where every tensor of both sides is accounted for."""

    loaded: tuple[str, ...]
    filled: tuple[str, ...]
    dropped: tuple[str, ...]
    missing: tuple[Missing, ...]
    unexpected: tuple[Unexpected, ...]
    mismatched: tuple[Pair, ...]
    dtypes: tuple[Pair, ...]
    collisions: tuple[Collision, ...]
    errors: tuple[CkptfixError, ...]
    tensors: float
    """Loaded keys over all target keys."""
    params: float
    """Loaded elements over all target elements."""
    wrappers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What should be known of how either side was read."""
    wanted: int = field(default=0)
    """The number of target keys."""

    @property
    def compatible(self) -> bool:
        """Whether a strict load would succeed with nothing left over."""
        return not (self.missing or self.unexpected or self.mismatched or self.errors)

    def to_json(self) -> ReportDocument:
        """Give the document of `check --json`."""
        return {
            "schema_version": 1,
            "compatible": self.compatible,
            "coverage": {"tensors": self.tensors, "params": self.params},
            "loaded": list(self.loaded),
            "filled": list(self.filled),
            "dropped": list(self.dropped),
            "missing": [_missing(row) for row in self.missing],
            "unexpected": [
                {"key": row.key, "from": list(row.sources), "nearest": list(row.nearest), **_spec(row.have)}
                for row in self.unexpected
            ],
            "mismatched": [_pair(row) for row in self.mismatched],
            "dtypes": [_pair(row) for row in self.dtypes],
            "collisions": [{"key": row.key, "rules": list(row.rules)} for row in self.collisions],
            "errors": [_error(error) for error in self.errors],
            "wrappers": list(self.wrappers),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """One line."""
        parts = [f"{len(self.loaded)} of {self.wanted} tensors loaded"]
        counts = {
            "filled": self.filled,
            "dropped": self.dropped,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "mismatched": self.mismatched,
        }
        parts += [f"{len(rows)} {name}" for name, rows in counts.items() if rows]
        return ", ".join(parts)


def _spec(spec: TensorSpec) -> SpecDocument:
    return {"shape": list(spec.shape), "dtype": str(spec.dtype)}


def _pair(pair: Pair) -> PairDocument:
    return {"key": pair.key, "have": _spec(pair.have), "want": _spec(pair.want)}


def _missing(row: Missing) -> MissingDocument:
    return {"key": row.key, "nearest": list(row.nearest), "hint": row.hint, **_spec(row.want)}


def _error(error: CkptfixError) -> ErrorDocument:
    where = str(error.where) if error.where else None
    return {"code": error.code, "where": where, "message": error.message, "hint": error.hint}
