"""What an example shows."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from ckptfix.inference.link import Link, Open
from ckptfix.tensors import DType


class Taken(Struct, frozen=True):
    """Rows of a source along one axis that make a target."""

    source: str
    target: str
    axis: int
    rows: tuple[int, ...]


class ExampleResult(Struct, frozen=True):
    """How the tensors of an example were made.

    Each key of the example stands in one of `links`, `fills` (a number that it is filled with), `copies` (another key
    of the example that it repeats), `taken` (rows of a source) or `unexplained`. `unused` are source keys that nothing
    was made of, `casts` the keys whose dtype is another than the source's. `notes` say what was decided by other means
    than values.
    """

    links: tuple[Link, ...] = ()
    unexplained: Mapping[str, Open] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fills: Mapping[str, float] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    taken: tuple[Taken, ...] = ()
    casts: Mapping[str, DType] = field(default_factory=dict)
