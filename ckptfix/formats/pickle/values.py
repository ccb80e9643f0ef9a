"""Values that exist only inside the machine, and the tensors made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from ckptfix.errors import MalformedFile
from ckptfix.formats.base import MAX_NBYTES, Node, Opaque, Storage, TensorRef, check_shape
from ckptfix.tensors import DType, Shape, TensorSpec

STORAGE_TYPES: dict[str, tuple[DType | None, int]] = {
    "DoubleStorage": (DType.F64, 8),
    "FloatStorage": (DType.F32, 4),
    "HalfStorage": (DType.F16, 2),
    "LongStorage": (DType.I64, 8),
    "IntStorage": (DType.I32, 4),
    "ShortStorage": (DType.I16, 2),
    "CharStorage": (DType.I8, 1),
    "ByteStorage": (DType.U8, 1),
    "BoolStorage": (DType.BOOL, 1),
    "BFloat16Storage": (DType.BF16, 2),
    "ComplexDoubleStorage": (DType.C128, 16),
    "ComplexFloatStorage": (DType.C64, 8),
    "UntypedStorage": (DType.U8, 1),
    "_UntypedStorage": (DType.U8, 1),
    # Quantised elements have no dtype of their own here: their tensors stay opaque.
    "QInt8Storage": (None, 1),
    "QUInt8Storage": (None, 1),
    "QInt32Storage": (None, 4),
    "QUInt4x2Storage": (None, 1),
    "QUInt2x4Storage": (None, 1),
}
"""Name of a storage class -> dtype and bytes of an element: `_dtype_to_storage_type_map` in torch/storage.py."""


class Global(Opaque, eq=False):
    """A name that unpickling would have imported, not called."""


class StorageValue(Opaque, eq=False, kw_only=True):
    """A storage that a persistent id stands for: where it lies, and the dtype of its class."""

    storage: Storage
    dtype: DType | None


class Run(Opaque, eq=False, kw_only=True):
    """A long argument that was left in the file: `bytes`, or a `str` whose characters may stand for bytes.

    It takes `nbytes` from byte `offset` on. `fetch(offset, length)` gives bytes of the file.
    """

    path: Path
    offset: int
    nbytes: int
    encoding: Literal["raw", "utf-8"]
    fetch: Callable[[int, int], bytes]

    def rest(self, start: int) -> Run:
        """Give all but the first `start` bytes, as they are stored."""
        return replace(self, offset=self.offset + start, nbytes=self.nbytes - start)

    def encoded(self) -> Run:
        """Give the bytes that the characters of the text stand for."""
        return replace(self, name="bytes")


class Parts(Opaque, eq=False):
    """A tensor that is made of several, its `entries`."""


class Wrapper(Opaque, eq=False):
    """A tensor of a class that wraps others: they are among its attributes."""


class Unbuilt(Opaque, eq=False, kw_only=True):
    """An object that becomes a value when its state is set; `build` gives None where it stays a record."""

    build: Callable[[Node], Node]
    value: Node = None
    """What it has become. What held the object before that holds it still."""


def is_of_torch(module: str) -> bool:
    """Tell a module of torch from one that only begins like it."""
    return module == "torch" or module.startswith("torch.")


def text_of(value: Node) -> str | None:
    """Give text as text, and the ASCII byte strings of Python 2 too; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes) and value.isascii():
        return value.decode("ascii")
    return None


def view(
    source: StorageValue,
    dtype: DType,
    offset: Node,
    size: Node,
    stride: Node,
    *,
    lazy: frozenset[Literal["conj", "neg"]],
) -> TensorRef:
    """Make the tensor that views `source` from element `offset`, with `size` and `stride` in elements.

    Raises MalformedFile where the view leaves the storage.
    """
    shape = check_shape(size)
    if type(offset) is not int or not 0 <= offset <= MAX_NBYTES:
        raise MalformedFile("a tensor has a negative or non-integer offset into its storage")
    if not isinstance(stride, _SEQUENCES) or len(stride) != len(shape):
        raise MalformedFile("a tensor has a stride for some axes only")
    if not _INTEGERS.issuperset(map(type, stride)):
        raise MalformedFile("a tensor has a negative or non-integer stride")
    spec, steps, reach = _extend(dtype, shape, tuple(stride))
    if reach and (offset + reach) * dtype.bits > source.storage.nbytes * 8:
        raise MalformedFile(
            f"a tensor {spec} ends at element {offset + reach} of a storage of "
            f"{source.storage.nbytes * 8 // dtype.bits}"
        )
    return TensorRef(spec, source.storage, offset, steps, lazy)


_SEQUENCES = (list, tuple)
_INTEGERS = {int}


@lru_cache(maxsize=1 << 12)
def _extend(dtype: DType, shape: Shape, stride: tuple[int, ...]) -> tuple[TensorSpec, tuple[int, ...], int]:
    """Give the spec, the stride, and the elements from the first to the last: the same for all tensors alike."""
    if not all(0 <= step <= MAX_NBYTES for step in stride):
        raise MalformedFile("a tensor has a negative or non-integer stride")
    spec = TensorSpec(shape, dtype)
    reach = 1 + sum((extent - 1) * step for extent, step in zip(shape, stride, strict=True))
    return spec, stride, reach if spec.numel else 0
