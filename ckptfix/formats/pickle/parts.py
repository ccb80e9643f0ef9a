"""Tensors that are made of several: sparse, quantised and nested ones.

None of them has a dtype and strides like other tensors, so each is read as what it consists of, under the names of the
torch methods that give these parts: `weight.indices`, `weight.values`, `weight.size`. Arguments: `_reduce_ex_internal`
in torch/_tensor.py.
"""

from __future__ import annotations

import struct

from ckptfix.formats.base import Node, Opaque, Storage, TensorRef, contiguous_stride
from ckptfix.formats.pickle.values import Global, Parts, StorageValue, text_of, view
from ckptfix.tensors import DType, TensorSpec

Arguments = tuple[Node, ...]

_INTEGERS = {"QInt8Storage": DType.I8, "QUInt8Storage": DType.U8, "QInt32Storage": DType.I32}
"""What a quantised element is; those of less than a byte are not read."""

_COORDINATES = ("indices", "values", "size")
_BY_ROW = ("crow_indices", "col_indices", "values", "size")
_BY_COLUMN = ("ccol_indices", "row_indices", "values", "size")
_LAYOUTS = {
    "torch.sparse_coo": _COORDINATES,
    "torch.sparse_csr": _BY_ROW,
    "torch.sparse_bsr": _BY_ROW,
    "torch.sparse_csc": _BY_COLUMN,
    "torch.sparse_bsc": _BY_COLUMN,
}


def rebuild_sparse(args: Arguments) -> Node:
    """Make a sparse tensor of (layout, (indices, values, size, ...)); the compressed layouts have two of indices."""
    if len(args) != 2 or not isinstance(args[0], Opaque) or not isinstance(args[1], tuple):
        return None
    layout = args[0].args[0] if isinstance(args[0].args, tuple) and args[0].args else None
    names = _LAYOUTS.get(text_of(layout) or "")
    if names is None or len(args[1]) < len(names):
        return None
    return _whole("_rebuild_sparse_tensor", dict(zip(names, args[1], strict=False)))


def rebuild_quantised(args: Arguments) -> Node:
    """Make a quantised tensor of (storage, offset, size, stride, (scheme, ...), ...)."""
    if len(args) < 5 or not isinstance(args[0], StorageValue) or not isinstance(args[4], tuple):
        return None
    dtype = _INTEGERS.get(args[0].name)
    scheme = args[4][0] if args[4] else None
    if dtype is None or not isinstance(scheme, Global):
        return None
    parts: dict[str, Node] = {"int_repr": view(args[0], dtype, args[1], args[2], args[3], lazy=frozenset())}
    if scheme.name == "per_tensor_affine" and len(args[4]) == 3:
        parts |= dict(zip(("q_scale", "q_zero_point"), args[4][1:], strict=True))
    elif scheme.name.startswith("per_channel_affine") and len(args[4]) == 4:
        names = ("q_per_channel_scales", "q_per_channel_zero_points", "q_per_channel_axis")
        parts |= dict(zip(names, args[4][1:], strict=True))
    else:
        return None
    return _whole("_rebuild_qtensor", parts)


def rebuild_nested(args: Arguments) -> Node:
    """Make a nested tensor of (buffer, sizes, strides, offsets)."""
    names = ("buffer", "sizes", "strides", "storage_offsets")
    return _whole("_rebuild_nested_tensor", dict(zip(names, args, strict=True))) if len(args) == len(names) else None


def _whole(name: str, parts: dict[str, Node]) -> Node:
    """Make the record of a tensor of parts; None where one of them is no tensor and no number."""
    found = {part: _as_tensor(value) for part, value in parts.items()}
    if None in found.values():
        return None
    return Parts("torch._utils", name, entries=list(found.items()))


def _as_tensor(value: Node) -> TensorRef | None:
    """Give a number, or a shape, as the tensor that holds it: 0-d or a vector."""
    if isinstance(value, TensorRef):
        return value
    if isinstance(value, float):
        return _holding((), DType.F64, struct.pack("<d", value))
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(type(number) is int and -(1 << 63) <= number < 1 << 63 for number in numbers):
        return None
    shape = (len(numbers),) if isinstance(value, tuple) else ()
    return _holding(shape, DType.I64, struct.pack(f"<{len(numbers)}q", *numbers))


def _holding(shape: tuple[int, ...], dtype: DType, data: bytes) -> TensorRef:
    return TensorRef(TensorSpec(shape, dtype), Storage.holding(data), 0, contiguous_stride(shape))
