"""A match between places of two blocks, and how sure it is."""

from __future__ import annotations

from math import prod

from msgspec import Struct, field

from ckptfix.inference.assignment import LEAST_MARGIN
from ckptfix.inference.link import Evidence
from ckptfix.inference.slots import Slot
from ckptfix.tensors import Shape

_LEAST_SUPPORT = 0.5

INTERLEAVED = "heads may lie one after the other, q, k and v of each together"
"""Why a fused projection of queries, keys and values may not be what it seems."""
TURNED_OR_NOT = "may be transposed, as others of this file are"
"""Why the layout of a square matrix is open."""
UNNAMED = "nothing says in which order queries, keys and values lie in it"
"""Why a tensor that may hold queries, keys and values is open."""
_CHANNELS_LAST = "an image's patches may lie in it with their channels last: o (h w c) -> o c h w"
_MOST_COLOURS = 4
_HALVES = "the halves of shift and scale may come the other way round"


def reserve(source: Slot, target: Slot, roles: tuple[str, str]) -> str:
    """Say what may be otherwise inside two tensors that correspond; nothing where no convention is known to differ."""
    words = set(source.name.words), set(target.name.words)
    if ("querykeyvalue" in words[0]) != ("querykeyvalue" in words[1]):
        return INTERLEAVED
    if (roles[0] == "qkv") != (roles[1] == "qkv"):
        return UNNAMED
    if ("modulation" in words[0]) != ("modulation" in words[1]) and target.shapes[0][0] % 2 == 0:
        return _HALVES
    if _unfolds_patches(source.shapes[0], target.shapes[0]):
        return _CHANNELS_LAST
    return ""


def _unfolds_patches(have: Shape, want: Shape) -> bool:
    """Tell whether one is a matrix over the patches of an image, and the other a filter of them.

    Maps of features are flattened with their channels first, by torch itself.
    """
    matrix, filters = sorted((have, want), key=len)
    return len(matrix) == 2 and len(filters) > 3 and filters[1] <= _MOST_COLOURS and prod(filters[2:]) > 1


class Match(Struct):
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
    def is_placed(self) -> bool:
        """Whether nothing else fits nearly as well, and something speaks for it."""
        return self.margin >= LEAST_MARGIN and self.support >= _LEAST_SUPPORT

    @property
    def is_certain(self) -> bool:
        """Whether it is placed, and nothing says that it may be otherwise inside (`why`)."""
        return self.is_placed and not self.why
