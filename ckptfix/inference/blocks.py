"""Align the repeated blocks of two models, level by level, until nothing that repeats is left on one side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.inference.units import Level, Pairing, Surroundings, Unit, find_levels, pair_levels
from ckptfix.tensors import TensorSpec

Tensors = Mapping[str, TensorSpec]
Reads = tuple[Mapping[str, str], Mapping[str, str]]
"""How the keys of both sides are read."""


class Aligned(Struct, frozen=True):
    """Two levels whose blocks correspond, and the modules around them, source and target."""

    pairing: Pairing
    scopes: tuple[str, str]

    def kinds(self) -> list[list[tuple[Unit, Unit]]]:
        """Group the pairs of blocks that have the same places on both sides."""
        groups: dict[object, list[tuple[Unit, Unit]]] = {}
        for source, target in self.pairing.pairs:
            groups.setdefault((frozenset(source.keys), frozenset(target.keys)), []).append((source, target))
        return list(groups.values())


def align_blocks(have: Tensors, want: Tensors, reads: Reads, *, use_names: bool) -> Iterator[Aligned]:
    """Pair the levels that correspond best, take their blocks out, and go on with what is left."""
    pools = dict(have), dict(want)
    doubted: dict[str, str] = {}
    while True:
        levels = find_levels(pools[0], reads[0]), find_levels(pools[1], reads[1])
        surroundings = _surroundings(pools, levels, reads)
        pairing = pair_levels(*levels, surroundings, use_names=use_names)
        if pairing is None:
            return
        known = doubted.get(pairing.source.template) or doubted.get(pairing.target.template)
        if known and not pairing.rivals:  # what is left of an exchange that nothing decides
            pairing = replace(pairing, rivals=(known,))
        doubted |= dict.fromkeys(pairing.rivals, pairing.source.template)
        scopes = surroundings.scope(0, pairing.source.template), surroundings.scope(1, pairing.target.template)
        yield Aligned(pairing, scopes)
        for pool, units in zip(pools, zip(*pairing.pairs, strict=True), strict=True):
            for unit in units:
                for key in unit.keys.values():
                    pool.pop(key, None)


def _surroundings(
    pools: tuple[Tensors, Tensors],
    levels: tuple[Sequence[Level], Sequence[Level]],
    reads: Reads,
) -> Surroundings:
    outside: list[dict[str, TensorSpec]] = []
    for pool, side, texts in zip(pools, levels, reads, strict=True):
        within: frozenset[str] = frozenset().union(*(level.keys for level in side))
        outside.append({texts[key]: spec for key, spec in pool.items() if key not in within})
    surroundings = Surroundings(*outside)
    surroundings.prepare(0, levels[0])
    surroundings.prepare(1, levels[1])
    return surroundings
