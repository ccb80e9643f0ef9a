"""Find the links between a source and an example by the values of their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from msgspec.structs import replace

from ckptfix.inference.example.bits import Bits, Tensors, can_cast
from ckptfix.inference.example.embed import Known, embed
from ckptfix.inference.example.parts import Placed, covers
from ckptfix.inference.example.slices import Fingerprint, Index, take_fingerprint
from ckptfix.inference.example.strides import Strided
from ckptfix.inference.example.write import write_link
from ckptfix.inference.link import Link
from ckptfix.tensors import DType, Manifest

_MOST_HOLDERS = 4
"""How many tensors are tried as the one that a piece was taken from."""

Class = tuple[DType, int, int]
"""Tensors of one dtype, number of elements and sum of hashes hold the same numbers."""


class Sides:
    """Both checkpoints: manifests, fingerprints and bits, each source in the dtype of what it is compared with."""

    def __init__(self, source: Tensors, example: Tensors) -> None:
        self.source = source
        self.example = example
        self.prints = {key: self._print(example, key, spec.dtype) for key, spec in example.manifest.items()}

    @staticmethod
    def _print(tensors: Tensors, key: str, dtype: DType) -> Fingerprint | None:
        bits = tensors.read(key, dtype)
        return take_fingerprint(bits) if bits is not None else None

    @cached_property
    def source_prints(self) -> Mapping[DType, Mapping[str, Fingerprint]]:
        """The fingerprints of the sources in each dtype of the example."""
        dtypes = dict.fromkeys(spec.dtype for spec in self.want.values())
        found: dict[DType, dict[str, Fingerprint]] = {dtype: {} for dtype in dtypes}
        for key, spec in self.have.items():
            for dtype in dtypes:
                print_ = self._print(self.source, key, dtype) if can_cast(spec.dtype, dtype) else None
                if print_ is not None:
                    found[dtype][key] = print_
        return found

    @cached_property
    def indices(self) -> Mapping[DType, Index]:
        """The slices of all sources, by dtype."""
        return {dtype: Index(prints) for dtype, prints in self.source_prints.items()}

    @property
    def have(self) -> Manifest:
        """The source's manifest."""
        return self.source.manifest

    @property
    def want(self) -> Manifest:
        """The example's manifest."""
        return self.example.manifest

    def classes(self) -> tuple[dict[Class, list[str]], dict[Class, list[str]]]:
        """Group the sources and the targets that hold the same numbers."""
        sources: dict[Class, list[str]] = {}
        for dtype, prints in self.source_prints.items():
            for key, print_ in prints.items():
                sources.setdefault((dtype, print_.numel, print_.whole), []).append(key)
        targets: dict[Class, list[str]] = {}
        for key, found in self.prints.items():
            if found is not None:
                targets.setdefault((self.want[key].dtype, found.numel, found.whole), []).append(key)
        return sources, targets

    def is_constant(self, target: str) -> bool:
        """Tell whether a target holds one number only."""
        found = self.prints[target]
        return found is not None and found.is_constant

    def known_target(self, key: str) -> Known:
        """Give a target's bits."""
        return Known.of(_must(self.example.read(key, self.want[key].dtype)), self.prints[key])

    def known_source(self, key: str, dtype: DType) -> Known:
        """Give a source's bits in a dtype."""
        return Known.of(_must(self.source.read(key, dtype)), self.source_prints[dtype][key])


def _must(bits: Bits | None) -> Bits:
    assert bits is not None, "only tensors with a fingerprint are asked for"
    return bits


def link_whole(sides: Sides, source: str, target: str) -> Link | None:
    """Find how one tensor becomes another that holds the same numbers; of no numbers, only the same shape will do."""
    dtype = sides.want[target].dtype
    if sides.want[target].numel == 0:
        return Link.rename(source, target) if sides.have[source].shape == sides.want[target].shape else None
    found = embed(sides.known_target(target), sides.known_source(source, dtype))
    if found is None:
        return None
    return write_link("split", source, sides.have[source].shape, [Placed(target, sides.want[target].shape, found)])


def link_fused(sides: Sides, target: str, free: set[str]) -> Link | None:
    """Find the sources that a target is put together from."""
    placed = pieces_inside(sides, target, free)
    if len(placed) < 2 or not covers(sides.want[target].shape, placed):
        return None
    return write_link("fuse", target, sides.want[target].shape, placed)


def pieces_inside(sides: Sides, target: str, free: set[str]) -> list[Placed]:
    """Find the unused sources that lie in a target, each in a place of its own."""
    print_ = sides.prints[target]
    if print_ is None:
        return []
    dtype = sides.want[target].dtype
    whole = sides.known_target(target)
    pieces: dict[tuple[int, object], Placed] = {}
    for source in _inside(sides, dtype, print_, free):
        found = embed(sides.known_source(source, dtype), whole)
        if found is not None:
            pieces.setdefault((found.start, found.digits), Placed(source, sides.have[source].shape, found))
    return list(pieces.values())


def _inside(sides: Sides, dtype: DType, print_: Fingerprint, free: set[str]) -> Iterator[str]:
    """Give the sources all of whose slices are slices of a target."""
    prints = sides.source_prints[dtype]
    seen: set[str] = set()
    for axes in print_.slices:
        for key, others, own, _ in sides.indices[dtype].shared(print_, axes):
            small = prints[key].numel < print_.numel
            if key in free and key not in seen and small and own == len(prints[key].slices[others]):
                seen.add(key)
                yield key


def find_holders(sides: Sides, targets: Iterable[str], free: set[str]) -> dict[str, list[Placed]]:
    """Find the sources that targets are parts of, with what was taken from each; unused ones are preferred."""
    holders: dict[str, list[Placed]] = {}
    for target in targets:
        print_ = sides.prints[target]
        if print_ is None:
            continue
        dtype = sides.want[target].dtype
        candidates = sorted(_around(sides, dtype, print_), key=lambda key: key not in free)
        for source in candidates[:_MOST_HOLDERS]:
            found = embed(sides.known_target(target), sides.known_source(source, dtype))
            if found is not None:
                holders.setdefault(source, []).append(Placed(target, sides.want[target].shape, found))
                break
    return holders


def _around(sides: Sides, dtype: DType, print_: Fingerprint) -> list[str]:
    """Give the sources that have all slices of a target."""
    hits = (
        hit
        for axes, different in ((axes, len(np.unique(sums))) for axes, sums in print_.slices.items())
        for hit in sides.indices[dtype].shared(print_, axes)
        if hit.others == different
    )
    return list(dict.fromkeys(hit.key for hit in hits))


def link_split(sides: Sides, source: str, pieces: Sequence[Placed]) -> tuple[Link | None, dict[str, str]]:
    """Find the layout that takes a source apart; give with it the pieces that repeat another one."""
    kept: dict[Strided, Placed] = {}
    copies: dict[str, str] = {}
    for piece in pieces:
        first = kept.setdefault(piece.found, piece)
        if first is not piece:
            copies[piece.key] = first.key
    if not covers(sides.have[source].shape, kept.values()):
        return None, {}
    return write_link("split", source, sides.have[source].shape, list(kept.values())), copies


def proven(sides: Sides, link: Link) -> Link:
    """Say that values prove a link, and whether a cast came between."""
    have = {sides.have[key].dtype for key in link.source_keys}
    want = {sides.want[key].dtype for key in link.target_keys}
    cast = "" if have == want else f" after a cast to {', '.join(sorted(want))}"
    return replace(link, why=f"equal to the bit{cast}", evidence=frozenset({"values"}))
