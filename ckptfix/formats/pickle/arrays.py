"""Arrays of numpy in a pickle: tensors whose bytes are an argument of the pickle itself.

Forms: `ndarray.__reduce__` and `__setstate__`, `dtype.__reduce__` (numpy/_core/src/multiarray/methods.c, descriptor.c),
and for protocol 5 `_frombuffer` of numpy/_core/numeric.py. Protocol 2 has no bytes and writes them as text,
`_codecs.encode(text, "latin1")`; the strings of Python 2 are bytes.
"""

from __future__ import annotations

from typing import Literal

from ckptfix.errors import MalformedFile
from ckptfix.formats.base import Node, Opaque, Storage, TensorRef, check_shape, contiguous_stride
from ckptfix.formats.pickle.globals import Arguments, Constructor
from ckptfix.formats.pickle.values import Global, Run, Unbuilt, text_of
from ckptfix.tensors import DType, Shape, TensorSpec

Order = Literal["C", "F"]

ELEMENTS = {
    "b1": DType.BOOL,
    "u1": DType.U8,
    "i1": DType.I8,
    "u2": DType.U16,
    "i2": DType.I16,
    "u4": DType.U32,
    "i4": DType.I32,
    "u8": DType.U64,
    "i8": DType.I64,
    "f2": DType.F16,
    "f4": DType.F32,
    "f8": DType.F64,
    "c8": DType.C64,
    "c16": DType.C128,
    # numpy has no bfloat16: the one of ml_dtypes is written as two bytes without a meaning, and nothing else is.
    "V2": DType.BF16,
}
"""numpy's kind and bytes of an element -> dtype. Its other kinds (text, dates, records, long double) are no tensors."""

_CLASSES = {"ndarray", "memmap", "matrix"}


def strides_of(shape: Shape, order: Order) -> tuple[int, ...]:
    """Give the strides, in elements, of an array that lies end to end in C's or Fortran's order of axes."""
    return contiguous_stride(shape) if order == "C" else contiguous_stride(shape[::-1])[::-1]


def storage_of(data: Node, nbytes: int, byteorder: Literal["little", "big"]) -> Storage | None:
    """Give the `nbytes` bytes that an argument is; None where it is none. Raises MalformedFile for another length."""
    if isinstance(data, bytes):
        if len(data) != nbytes:
            raise MalformedFile(f"a tensor of {nbytes} bytes is made of {len(data)}")
        return Storage.holding(data, byteorder)
    if not isinstance(data, Run) or data.name != "bytes":
        return None
    # As text a byte takes one or two; how many these are is seen when they are read.
    most = nbytes if data.encoding == "raw" else 2 * nbytes
    if not nbytes <= data.nbytes <= most:
        raise MalformedFile(f"a tensor of {nbytes} bytes is made of {data.nbytes}")
    return Storage(data.path, data.offset, nbytes, data.nbytes, data.encoding, byteorder)


def _reconstruct(args: Arguments) -> Node:
    """Begin an array of (class, shape, code): all that counts is set as its state."""
    if not args or not isinstance(args[0], Global) or args[0].module.partition(".")[0] != "numpy":
        return None
    if args[0].name not in _CLASSES:
        return None
    return Unbuilt("numpy._core.multiarray", "_reconstruct", args, build=_build)


def _build(state: Node) -> Node:
    """Finish an array by ([version, ]shape, dtype, is it in Fortran's order, data)."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        return None
    shape, dtype, fortran, data = state[-4:]
    if isinstance(data, list):
        return _objects(shape, data)
    return _array(data, dtype, shape, "F" if fortran in (True, 1) else "C")


def _objects(shape: Node, items: list[Node]) -> Node:
    """Give the value in an array of one object, and of more a list."""
    return items[0] if shape == () and len(items) == 1 else items


def _from_buffer(args: Arguments) -> Node:
    """Make an array of (data, dtype, shape, order[, order of the axes])."""
    if len(args) < 4:
        return None
    order = text_of(args[3])
    if order in ("C", "F"):
        return _array(args[0], args[1], args[2], "C" if order == "C" else "F")
    if order != "K" or len(args) != 5 or not isinstance(args[4], tuple):
        return None
    whole = _array(args[0], args[1], args[2], "C")
    if not isinstance(whole, TensorRef):
        return whole
    axes = [axis for axis in args[4] if type(axis) is int]
    if sorted(axes) != list(range(len(whole.spec.shape))):
        raise MalformedFile("the axes of an array are in no possible order")
    shape = tuple(whole.spec.shape[axis] for axis in axes)
    stride = tuple(whole.stride[axis] for axis in axes)
    return TensorRef(TensorSpec(shape, whole.spec.dtype), whole.storage, 0, stride)


def _scalar(args: Arguments) -> Node:
    """Make a number of numpy, of (dtype, data): a tensor without axes."""
    return _array(args[1], args[0], (), "C") if len(args) == 2 else None


def _array(data: Node, dtype: Node, shape: Node, order: Order) -> Node:
    element = _read_dtype(dtype)
    if element is None:
        return None
    spec = TensorSpec(check_shape(shape), element[0])
    storage = storage_of(data, spec.nbytes, element[1])
    return None if storage is None else TensorRef(spec, storage, 0, strides_of(spec.shape, order))


def _read_dtype(value: Node) -> tuple[DType, Literal["little", "big"]] | None:
    """Read `dtype(code, align, copy)` with the state (version, byte order, ...)."""
    if not isinstance(value, Opaque) or (value.module, value.name) != ("numpy", "dtype"):
        return None
    if not isinstance(value.args, tuple) or not value.args:
        return None
    code = value.args[0]
    if isinstance(code, Global):
        dtype = DType.from_torch_name(code.name) if code.module == "ml_dtypes" else None
    else:
        dtype = ELEMENTS.get(text_of(code) or "")
    state = value.state
    order = text_of(state[1]) if isinstance(state, tuple) and len(state) > 1 else "="
    return None if dtype is None else (dtype, "big" if order == ">" else "little")


_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")

ARRAYS: dict[tuple[str, str], Constructor] = {
    (module, name): constructor
    for module in _MODULES
    for name, constructor in {"_reconstruct": _reconstruct, "_frombuffer": _from_buffer, "scalar": _scalar}.items()
}
