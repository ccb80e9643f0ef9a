"""Expressions: how one output tensor is made out of source tensors.

An expression is frozen data. Its `spec` follows from its inputs in plain integers, so a plan knows every
output shape and dtype before a byte is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import asdict, astuple, replace

from ckptfix.layout import Axes
from ckptfix.tensors import DType, Shape, TensorSpec


class Read(Struct, frozen=True, gc=False):
    """A tensor of the source, as it lies there."""

    key: str
    spec: TensorSpec

    def __str__(self) -> str:
        return self.key


class Constant(Struct, frozen=True):
    """A tensor filled with one number."""

    spec: TensorSpec
    value: float | int | bool

    def __str__(self) -> str:
        return f"fill({self.value})"


class Normal(Struct, frozen=True):
    """Random numbers around 0 with a standard deviation, drawn for `key` from a seed."""

    spec: TensorSpec
    key: str
    std: float
    seed: int

    def __str__(self) -> str:
        return f"normal(std={self.std:g}, seed={self.seed})"


class Initial(Struct, frozen=True):
    """The value that the target itself gives `key` when it is built after `manual_seed(seed)`."""

    spec: TensorSpec
    key: str
    seed: int

    def __str__(self) -> str:
        return f"target({self.key}, seed={self.seed})"


class Cast(Struct, frozen=True, dict=True):
    """The same numbers in another dtype."""

    source: Expr
    dtype: DType

    @cached_property
    def spec(self) -> TensorSpec:
        """The source's shape in the new dtype."""
        return TensorSpec(self.source.spec.shape, self.dtype)

    def __str__(self) -> str:
        return f"cast({self.source}, {self.dtype})"


class Block(Struct, frozen=True):
    """The part of a tensor that a resize works on.

    Along dimension `dim` only `start` to `stop` takes part; the rest is left alone. Seen as `inner` (extents of
    the unfolded axes), the part has the extent `sizes[n]` along `axes[n]` afterwards, and `shape` once it is folded
    back to the tensor's own dimensions.
    """

    dim: int
    start: int
    stop: int
    inner: Shape
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    shape: Shape


Interpolation = Literal["bicubic", "bilinear", "linear", "nearest", "pinv", "geometric"]


class Resize(Struct, frozen=True):
    """Another extent along some axes, by interpolation in float32, or by its pseudo-inverse (`pinv`)."""

    source: Expr
    spec: TensorSpec
    block: Block
    mode: Interpolation
    antialias: bool
    align_corners: bool

    def __str__(self) -> str:
        return f"{self.mode}({self.source}, {_change(self.source, self.spec)})"


class Channels(Struct, frozen=True):
    """Another number of channels along one axis: the old ones in turn (`tile`), or each their `sum` or `mean`.

    With `rescale` they together weigh what the old ones did, so that an input whose channels are all alike gets the
    same response; not exactly where `tile` ends within a turn.
    """

    source: Expr
    spec: TensorSpec
    block: Block
    mode: Literal["tile", "sum", "mean"]
    rescale: bool

    def __str__(self) -> str:
        return f"{self.mode}({self.source}, {_change(self.source, self.spec)}{', rescaled' if self.rescale else ''})"


class Crop(Struct, frozen=True):
    """The leading part along some axes."""

    source: Expr
    spec: TensorSpec
    block: Block

    def __str__(self) -> str:
        return f"crop({self.source}, {_change(self.source, self.spec)})"


class Pad(Struct, frozen=True):
    """More rows after the present ones: a number, the mean of the present ones, or those of `filler`."""

    source: Expr
    spec: TensorSpec
    block: Block
    value: float | Literal["mean"]
    filler: Expr | None = None

    def __str__(self) -> str:
        rows = str(self.filler) if self.filler else self.value
        return f"pad({self.source}, {_change(self.source, self.spec)}, {rows})"


class Term(Struct, frozen=True):
    """One source of a rearrangement: its axes, and its place along axes that it lacks, as experts.3 has 3 along e."""

    source: Expr
    axes: Axes
    index: tuple[tuple[str, int], ...] = ()


class Rearrange(Struct, frozen=True):
    """The same numbers in other places: split, fused, stacked, unstacked, permuted, reshaped, repeated.

    The blocks of the terms, told apart by the names of their axes, are put together along `axes`. `index` chooses a
    place along axes that this output lacks, `sizes` gives the extent of every name, `label` is the layout as written.
    """

    terms: tuple[Term, ...]
    spec: TensorSpec
    axes: Axes
    index: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[str, int], ...]
    label: str

    def __str__(self) -> str:
        shown = [str(term.source) for term in self.terms]
        if len(shown) > _MOST_SHOWN:
            shown = [*shown[:2], f"... {len(shown)} in all"]
        place = "".join(f" at {name}={number}" for name, number in self.index)
        return f"rearrange({', '.join(shown)}: {self.label}{place})"


class Take(Struct, frozen=True):
    """Some rows along one dimension, in a given order."""

    source: Expr
    dim: int
    rows: tuple[int, ...] | range

    @property
    def spec(self) -> TensorSpec:
        """The source's shape with as many rows as are taken."""
        shape = self.source.spec.shape
        return TensorSpec((*shape[: self.dim], len(self.rows), *shape[self.dim + 1 :]), self.source.spec.dtype)

    def __str__(self) -> str:
        rows = list(self.rows[:3]) if len(self.rows) > _MOST_SHOWN else list(self.rows)
        more = f", ... {len(self.rows)} rows" if len(self.rows) > _MOST_SHOWN else ""
        return f"take({self.source}, dim {self.dim}: {', '.join(map(str, rows))}{more})"


class Compute(Struct, frozen=True):
    """What an op of a single file makes by a function of its own: torch tensors in, one torch tensor out."""

    parts: tuple[Expr, ...]
    spec: TensorSpec
    function: Callable[..., object]
    label: str

    def __str__(self) -> str:
        return f"{self.label}({', '.join(map(str, self.parts))})"


Expr = Read | Constant | Normal | Initial | Cast | Resize | Channels | Crop | Pad | Rearrange | Take | Compute
_EXPRESSIONS = get_args(Expr)
_MOST_SHOWN = 4


def _change(source: Expr, spec: TensorSpec) -> str:
    return f"{list(source.spec.shape)} -> {list(spec.shape)}"


def inputs(expr: Expr) -> Iterator[Expr]:
    """Give the expressions that this one is made from."""
    for value in astuple(expr):
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Term):
                yield part.source
            elif isinstance(part, _EXPRESSIONS):
                yield part


def replace_reads(expr: Expr, read: Callable[[Read], Read]) -> Expr:
    """Give the same expression over other source tensors of the same specs."""
    if isinstance(expr, Read):
        return read(expr)

    def rebuilt(value: object) -> object:
        if isinstance(value, Term):
            return replace(value, source=replace_reads(value.source, read))
        if isinstance(value, tuple):
            return tuple(map(rebuilt, value))
        return replace_reads(value, read) if isinstance(value, Expr) else value

    return replace(expr, **{name: rebuilt(value) for name, value in asdict(expr).items()})


def leaves(expr: Expr) -> Iterator[Expr]:
    """Give the expressions at the bottom: reads and fills."""
    below = [] if isinstance(expr, Read) else list(inputs(expr))
    if not below:
        yield expr
    for part in below:
        yield from leaves(part)


def sources(expr: Expr) -> list[str]:
    """List the source keys that an expression reads, each once."""
    if isinstance(expr, Read):
        return [expr.key]
    return list(dict.fromkeys(leaf.key for leaf in leaves(expr) if isinstance(leaf, Read)))
