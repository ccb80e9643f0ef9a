"""A match between places of two blocks, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptfix.inference.assignment import LEAST_MARGIN
from ckptfix.inference.link import Evidence
from ckptfix.inference.slots import Slot

_LEAST_SUPPORT = 0.5

INTERLEAVED = "heads may lie one after the other, q, k and v of each together"
"""Why a fused projection of queries, keys and values may not be what it seems."""


@dataclass
class Match:
    """Source slots that make target slots, in every block of the kind. `rivals` are places that fit as well."""

    sources: tuple[Slot, ...]
    targets: tuple[Slot, ...]
    layout: str | None
    support: float
    margin: float
    evidence: set[Evidence] = field(default_factory=set)
    rivals: tuple[Slot, ...] = ()
    why: str = ""
    options: tuple[str | None, ...] = (None,)
    inside: bool = True

    @property
    def is_certain(self) -> bool:
        """Whether nothing else fits nearly as well, and something speaks for it."""
        return self.margin >= LEAST_MARGIN and self.support >= _LEAST_SUPPORT
