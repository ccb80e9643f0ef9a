"""Apply a link to the tensors beside those that it was found for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.errors import CkptfixError
from ckptfix.formats import Checkpoint, Reader
from ckptfix.inference.example.search import Sides
from ckptfix.inference.example.trial import carry_out, read_tensor
from ckptfix.inference.link import Link, Term
from ckptfix.layout import Axes, Layout, Shaped, expand, solve_layout
from ckptfix.tensors import Manifest


class Trial(Struct, frozen=True):
    """Both files, to carry out a rule and compare."""

    source: Checkpoint
    example: Checkpoint
    reader: Reader

    def agrees(self, link: Link) -> bool:
        """Carry out the layout of a link whose terms are single tensors; compare all numbers."""
        if link.layout is None or any(term.axis for term in (*link.sources, *link.targets)):
            return False
        wanted = Manifest({key: self.example.manifest[key] for key in link.target_keys})
        away = {key: f"old.{key}" for key in link.source_keys}
        rule: dict[str, object] = {"op": "rearrange", "from": list(away.values()), "to": list(wanted)}
        rule |= {"layout": link.layout} | ({"sizes": dict(link.sizes)} if link.sizes else {})
        made = carry_out(self.source, self.reader, link.source_keys, wanted, [{"op": "rename", "map": away}, rule])
        if made is None:
            return False
        want = {key: read_tensor(self.example, self.reader, key) for key in wanted}
        return all(bool((made[key].to(tensor.dtype) == tensor).all()) for key, tensor in want.items())


def echo_links(
    sides: Sides, links: Sequence[Link], targets: Sequence[str], free: set[str], trial: Trial
) -> Iterator[Link]:
    """Give the links of tensors that lie beside linked ones: where the weights were split, the biases were.

    Values cannot tell zeros apart, so the names of the neighbours do; values only have to agree.
    """
    left = dict.fromkeys(targets)
    unused = set(free)
    leaves = dict.fromkeys(key.rpartition(".")[2] for key in targets)
    for link in links:
        for leaf in leaves:
            moved = _beside(link, leaf)
            keys = set(moved.target_keys)
            if keys <= left.keys() and set(moved.source_keys) <= unused and _fits(sides, moved, trial):
                yield moved
                left = {key: None for key in left if key not in keys}
                unused -= set(moved.source_keys)


def _beside(link: Link, leaf: str) -> Link:
    def move(term: Term) -> Term:
        return Term(tuple(f"{key.rpartition('.')[0]}.{leaf}" for key in term.keys), term.axis)

    return replace(
        link,
        sources=tuple(map(move, link.sources)),
        targets=tuple(map(move, link.targets)),
        confidence=0.9,
        why="as the tensors beside it, which values tell",
        evidence=frozenset({"values", "names"}),
    )


def _fits(sides: Sides, link: Link, trial: Trial) -> bool:
    """Tell whether the layout fits the shapes and gives the numbers; where all are one number, the shapes do."""
    dtype = sides.want[link.target_keys[0]].dtype
    prints = [sides.prints[key] for key in link.target_keys]
    prints += [sides.source_prints[dtype].get(key) for key in link.source_keys]
    if any(print_ is None or not print_.is_constant or not print_.numel for print_ in prints):
        return trial.agrees(link)
    numbers = {int(sides.known_target(key).bits.flat[0]) for key in link.target_keys}
    numbers |= {int(sides.known_source(key, dtype).bits.flat[0]) for key in link.source_keys}
    return len(numbers) == 1 and _solves(sides, link)


def _solves(sides: Sides, link: Link) -> bool:
    if link.layout is None:
        return sides.have[link.source_keys[0]].shape == sides.want[link.target_keys[0]].shape
    layout = Layout.parse(link.layout)
    stacked = {term.axis: len(term.keys) for term in (*link.sources, *link.targets) if term.axis}
    try:
        left, right = (
            [
                Shaped(_own_axes(axes, term, len(manifest[key].shape)), manifest[key].shape, key)
                for axes, term in zip(side, terms, strict=True)
                for key in term.keys
            ]
            for side, terms, manifest in (
                (layout.left, link.sources, sides.have),
                (layout.right, link.targets, sides.want),
            )
        )
        solve_layout(left, right, {**link.sizes, **stacked})
    except CkptfixError:
        return False
    return True


def _own_axes(axes: Axes, term: Term, rank: int) -> Axes:
    return expand(tuple(axis for axis in axes if str(axis) != term.axis), rank)
