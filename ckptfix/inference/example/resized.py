"""Find what a script resized: try the ways that scripts have, and compare the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product

from ckptfix.formats import Checkpoint, Reader
from ckptfix.inference.example.trial import Rules, carry_out, read_tensor
from ckptfix.inference.example.twins import Names
from ckptfix.inference.link import Link, Term
from ckptfix.tensors import Manifest, TensorSpec

Fields = Mapping[str, object]

_MOST_CANDIDATES = 4
_MOST_OTHERS = 17
"""Rows beside a grid are fewer than this: class, distillation and register tokens."""
_LETTERS = "abcdjklm"
_FLIPS = (False, True)
_TOLERANCE = {16: 2e-2, 32: 1e-5, 64: 1e-5}
"""How far apart the numbers of two implementations may be, relative to the largest, by the bits of the example."""


def find_resized(
    source: Checkpoint,
    example: Checkpoint,
    reader: Reader,
    targets: Sequence[str],
    free: AbstractSet[str],
    names: Names,
) -> Iterator[Link]:
    """Give links for the targets that resizing an unused source explains."""
    left = set(free)
    for target in targets:
        want = example.manifest[target]
        near = sorted(
            (key for key in left if _may_become(source.manifest[key], want)),
            key=lambda key: (-names.score(key, target), key),
        )
        for key in near[:_MOST_CANDIDATES]:
            fields = _explain(source, example, reader, key, target)
            if fields is not None:
                left.discard(key)
                yield Link(
                    (Term.of(key),),
                    (Term.of(target),),
                    resize=fields,
                    confidence=0.97,
                    why=f"{fields['mode']} gives the same numbers",
                    evidence=frozenset({"values"}),
                )
                break


def _may_become(have: TensorSpec, want: TensorSpec) -> bool:
    if have.dtype.kind != "float" or want.dtype.kind != "float" or want.dtype.bits not in _TOLERANCE:
        return False
    if len(have.shape) != len(want.shape) or 0 in (*have.shape, *want.shape):
        return False
    return len(_changed(have, want)) in (1, 2)


def _changed(have: TensorSpec, want: TensorSpec) -> list[int]:
    pairs = zip(have.shape, want.shape, strict=True)
    return [axis for axis, (old, new) in enumerate(pairs) if old != new]


def _explain(source: Checkpoint, example: Checkpoint, reader: Reader, key: str, target: str) -> Fields | None:
    """Try every way, and give the one whose numbers are nearest, where they are near enough."""
    have, want = source.manifest[key], example.manifest[target]
    expected = read_tensor(example, reader, target).double()
    allowed = _TOLERANCE[want.dtype.bits] * float(expected.abs().max())
    rename: Rules = [{"op": "rename", "map": {key: target}}] if key != target else []
    found: list[tuple[float, int, Fields]] = []
    for number, fields in enumerate(_ways(have, want)):
        rules = [*rename, {"op": "resize", "keys": target, **fields}]
        made = carry_out(source, reader, [key], Manifest({target: want}), rules)
        distance = float((made[target].double() - expected).abs().max()) if made is not None else math.inf
        if distance <= allowed:
            found.append((distance, number, fields))
    return min(found)[2] if found else None


def _ways(have: TensorSpec, want: TensorSpec) -> Iterator[Fields]:
    """Give the fields of the resize rules that lead from one shape to the other, the simplest first."""
    changed = _changed(have, want)
    names = list(_LETTERS[: len(have.shape)])
    for axis, name in zip(changed, "hw" if len(changed) == 2 else "n", strict=True):
        names[axis] = name
    plain: Fields = {"layout": " ".join(names), "axes": [names[axis] for axis in changed]}
    if all(have.shape[axis] > want.shape[axis] for axis in changed):
        yield {**plain, "mode": "crop"}
    if all(have.shape[axis] < want.shape[axis] for axis in changed):
        yield {**plain, "mode": "pad"}
        if len(changed) == 1:
            yield {**plain, "mode": "pad", "fill": "mean"}
    if len(changed) == 1:
        for mode, rescale in product(("tile", "sum", "mean"), _FLIPS):
            yield {**plain, "mode": mode, **({"rescale": True} if rescale else {})}
        yield from _grids(have, want, changed[0], names)
        yield from ({**plain, "mode": "linear", **_on("align_corners", flip)} for flip in _FLIPS)
    else:
        yield from _planes(plain)
        for flip in _FLIPS:
            yield {**plain, "mode": "pinv", **_on("antialias", flip)}


def _grids(have: TensorSpec, want: TensorSpec, axis: int, names: Sequence[str]) -> Iterator[Fields]:
    """Take the axis as a square grid, before or behind which some rows stand for themselves."""
    for others in range(_MOST_OTHERS):
        if not _is_square(have.shape[axis] - others) or not _is_square(want.shape[axis] - others):
            continue
        for text in ("(p + (h w))", "((h w) + p)") if others else ("(h w)",):
            layout = " ".join(text if place == axis else name for place, name in enumerate(names))
            sizes = {"sizes": {"p": others}} if others else {}
            grid: Fields = {"layout": layout, "axes": ["h", "w"], **sizes}
            yield from _planes(grid)
            yield {**grid, "mode": "geometric"}


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def _planes(fields: Fields) -> Iterator[Fields]:
    for mode, antialias, corners in product(("bicubic", "bilinear"), _FLIPS, _FLIPS):
        if not (antialias and corners):
            yield {**fields, "mode": mode, **_on("antialias", antialias), **_on("align_corners", corners)}
    yield {**fields, "mode": "nearest"}


def _on(option: str, value: bool) -> Fields:
    return {option: True} if value else {}
