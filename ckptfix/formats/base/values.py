"""Inert values, and tensors that know where their bytes lie."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats.base.joined import Joined
from ckptfix.tensors import Shape, TensorSpec

MAX_RANK = 64
"""Axes of a tensor: torch and numpy stop there."""

MAX_NBYTES = (1 << 63) - 1
"""Bytes of a tensor: torch counts them in a signed 64-bit integer."""


class Storage(Struct, frozen=True, gc=False):
    """A run of bytes in a file that one or more tensors view.

    `offset` and `stored_nbytes` say where the run lies in the file, `nbytes` how long it is once decoded; they
    differ only for `deflate`, and for `utf-8`, the text whose characters are the bytes. The first `skip` decoded bytes
    are a header that belongs to no tensor. `crc32` is the checksum of all that is decoded, the header too, where the
    format keeps one. `held` are the bytes themselves where they are so few that the headers brought them along; such
    a run has no place in the file.
    """

    path: Path
    offset: int
    nbytes: int
    stored_nbytes: int
    encoding: Literal["raw", "deflate", "utf-8"] = "raw"
    byteorder: Literal["little", "big"] = "little"
    crc32: int | None = None
    skip: int = 0
    held: bytes | None = None

    @classmethod
    def holding(cls, data: bytes, byteorder: Literal["little", "big"] = "little") -> Storage:
        """Make a storage of bytes that were read with the headers."""
        return cls(Path(), 0, len(data), len(data), byteorder=byteorder, held=data)


class TensorRef(Struct, frozen=True, gc=False):
    """A tensor in a file: a strided view of a storage, or several joined. `offset` and `stride` count elements.

    The constructor of a ref has already checked that the view lies inside the storage. `lazy` names a bit that
    torch applies on reading (`conj`, `neg`).
    """

    spec: TensorSpec
    storage: Storage | Joined
    offset: int
    stride: tuple[int, ...]
    lazy: frozenset[Literal["conj", "neg"]] = frozenset()

    @property
    def storages(self) -> tuple[Storage, ...]:
        """The runs of bytes that hold the elements."""
        if isinstance(self.storage, Storage):
            return (self.storage,)
        return tuple(storage for piece in self.storage.pieces for storage in piece.ref.storages)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie end to end, outermost axis first."""
        if self.spec.numel == 0:
            return True
        expected = 1
        for extent, stride in zip(reversed(self.spec.shape), reversed(self.stride), strict=True):
            if extent > 1 and stride != expected:
                return False
            expected *= extent
        return True


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the strides, in elements, of a contiguous tensor."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def check_shape(shape: object) -> Shape:
    """Give the shape as a tuple of extents.

    Raises MalformedFile where it is not a sequence of integers >= 0, LimitExceeded where no tensor can have it.
    """
    if not isinstance(shape, _SEQUENCES):
        raise MalformedFile(f"a shape is not a list of integers from 0 up: {_clip(shape)}")
    if len(shape) > MAX_RANK:
        raise LimitExceeded(f"a tensor has {len(shape)} axes, {MAX_RANK} are possible")
    # Only integers may be looked up among the shapes that were checked: True equals 1.
    if not _INTEGERS.issuperset(map(type, shape)):
        raise MalformedFile(f"a shape is not a list of integers from 0 up: {_clip(shape)}")
    return _check_extents(tuple(shape))


_SEQUENCES = (list, tuple)
_INTEGERS = {int}


@lru_cache(maxsize=1 << 12)
def _check_extents(shape: Shape) -> Shape:
    """Give the shape, the same one for every tensor that has it."""
    if any(extent < 0 for extent in shape):
        raise MalformedFile(f"a shape is not a list of integers from 0 up: {_clip(shape)}")
    # Empty axes count as one: the strides of an empty tensor overflow all the same.
    if math.prod(extent or 1 for extent in shape) > MAX_NBYTES // 16:
        raise LimitExceeded(f"a tensor of shape {_clip(list(shape))} has more elements than a file can hold")
    return shape


def _clip(value: object) -> str:
    """Show a value of a hostile file in at most 80 characters, and at no more cost than that."""
    if isinstance(value, list | tuple):
        shown = ", ".join(str(item)[:24] if type(item) is int and item < 1 << 128 else "…" for item in value[:8])
        return f"[{shown}{', …' if len(value) > 8 else ''}]"
    return type(value).__name__


class Opaque(Struct, eq=False):
    """A value that the file would have made by calling code: its name and its arguments, never the code.

    `module` and `name` are what unpickling would have imported; `args` are the constructor's arguments, `state`
    what `__setstate__` would have been given, `items` and `entries` what would have been appended or set by key.
    All are inert values, so that tensors inside stay reachable. The machine fills a record while it runs, because
    a pickle may refer to an object before its state is known; after that nothing changes it.
    """

    module: str
    name: str
    args: Node = ()
    state: Node = None
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Pairs(Struct, eq=False):
    """A mapping as the file holds it: pairs in order, with keys that are never hashed or compared."""

    items: list[tuple[Node, Node]] = field(default_factory=list)


Node = (
    TensorRef | Opaque | Pairs | list["Node"] | tuple["Node", ...] | str | bytes | int | float | complex | bool | None
)
"""An inert value of a file. Sets are lists, byte arrays are bytes. Values may be shared, and may contain themselves."""
