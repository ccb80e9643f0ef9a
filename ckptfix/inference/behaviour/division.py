"""One tensor split into several, or several fused into one: in which order, and head by head or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from math import gcd

from msgspec import Struct

from ckptfix.inference.behaviour.questions import Links, Sides
from ckptfix.inference.link import Link, Term
from ckptfix.inference.names import read_name
from ckptfix.inference.slots import find_role
from ckptfix.tensors import Manifest

_ORDERS = (("q", "k", "v"), ("k", "v"), ("gate", "up"))


def is_division(sources: Sequence[str], targets: Sequence[str], have: Manifest, want: Manifest) -> bool:
    """Tell whether one tensor is split into several, or several are fused into one."""
    sizes = sum(have[key].numel for key in sources), sum(want[key].numel for key in targets)
    return (len(sources) == 1) != (len(targets) == 1) and sizes[0] == sizes[1]


def divide(sides: Sequence[Sides], have: Manifest, want: Manifest) -> Iterator[Links]:
    """Lay the parts end to end, in all or head by head, for every number of heads that divides them."""
    divisions = [found for pair in sides if (found := _find(*pair, have, want))]
    if len(divisions) < len(sides) or len({len(found.parts) for found in divisions}) > 1:
        return
    heads = gcd(*(extent for found in divisions for extent in found.extents))
    names, orders = _orders(divisions[0].parts)
    for order in orders:
        for h in (number for number in range(1, heads + 1) if heads % number == 0):
            yield tuple(found.link(names, order, h) for found in divisions)


class _Division(Struct, frozen=True):
    """One tensor and the parts that it is split into, or that are fused to it, along its first or last axis."""

    whole: str
    parts: tuple[str, ...]
    extents: tuple[int, ...]
    axis: int
    is_split: bool

    def link(self, names: Sequence[str], order: Sequence[int], heads: int) -> Link:
        """Make the link where the parts lie in an order, `heads` times so."""
        head = "h " if heads > 1 else ""
        place = "... {}" if self.axis else "{} ..."
        joined = f"({'+'.join(names)})"
        whole = place.format(f"({head}{joined})" if head else joined)
        parts = ", ".join(place.format(f"({head}{name})" if head else name) for name in names)
        one, several = (Term.of(self.whole),), tuple(Term.of(self.parts[number]) for number in order)
        sizes = {"h": heads} if head else {}
        if self.is_split:
            return Link(one, several, f"{whole} -> {parts}", sizes)
        return Link(several, one, f"{parts} -> {whole}", sizes)


def _find(sources: tuple[str, ...], targets: tuple[str, ...], have: Manifest, want: Manifest) -> _Division | None:
    """Find the axis along which the parts lie in the whole."""
    is_split = len(targets) > 1
    whole, parts = (sources[0], targets) if is_split else (targets[0], sources)
    fused, shape = (have[whole].shape, want) if is_split else (want[whole].shape, have)
    shapes = [shape[key].shape for key in _sorted(parts)]
    if {len(part) for part in shapes} != {len(fused)} or not fused:
        return None
    for axis in (0, len(fused) - 1):
        rest = {(*each[:axis], *each[axis + 1 :]) for each in (*shapes, fused)}
        extents = tuple(part[axis] for part in shapes)
        if len(rest) == 1 and sum(extents) == fused[axis]:
            return _Division(whole, tuple(_sorted(parts)), extents, axis, is_split)
    return None


def _orders(parts: Sequence[str]) -> tuple[Sequence[str], list[tuple[int, ...]]]:
    """Name the parts, and give the orders in which they may lie: one where their roles are known."""
    plain = tuple(range(len(parts)))
    if known := _known_order(parts):
        return known, [plain]
    return [f"p{number}" for number in plain], list(permutations(plain)) if len(plain) < 5 else []


def _sorted(parts: Sequence[str]) -> list[str]:
    """Put queries before keys before values, and gates before ways up."""
    order = _known_order(parts)
    return sorted(parts, key=lambda key: order.index(_role(key))) if order else sorted(parts)


def _known_order(parts: Sequence[str]) -> tuple[str, ...] | None:
    roles = sorted(map(_role, parts))
    return next((order for order in _ORDERS if sorted(order) == roles), None)


def _role(key: str) -> str:
    return find_role(read_name(key)).removeprefix("cross ")
