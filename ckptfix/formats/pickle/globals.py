"""The constructors that are known: each gives the value that calling it would have made.

A new kind of value is a new row of `CONSTRUCTORS`. A function gets the call's arguments and gives None where the call
is not of the form it knows; the call then stays an opaque record, as that of any unknown name does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from ckptfix.errors import MalformedFile
from ckptfix.formats.base import Node, Opaque, Pairs, TensorRef
from ckptfix.formats.pickle.parts import rebuild_nested, rebuild_quantised, rebuild_sparse
from ckptfix.formats.pickle.values import STORAGE_TYPES, Global, Parts, Run, StorageValue, Wrapper, is_of_torch, view
from ckptfix.tensors import DType

Arguments = tuple[Node, ...]
Constructor = Callable[[Arguments], Node]


def rebuild_tensor(args: Arguments) -> Node:
    """Make a tensor of (storage, offset, size, stride[, requires_grad, hooks[, metadata]])."""
    source = args[0] if len(args) >= 4 else None
    if not isinstance(source, StorageValue):
        raise MalformedFile("a tensor is built of something other than a storage, offset, size and stride")
    if source.dtype is None:
        return None
    return view(source, source.dtype, args[1], args[2], args[3], lazy=_lazy(args[6:7]))


def rebuild_tensor_with_dtype(args: Arguments) -> Node:
    """Make a tensor of (storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])."""
    source = args[0] if len(args) >= 7 else None
    if not isinstance(source, StorageValue):
        raise MalformedFile("a tensor is built of something other than a storage, offset, size, stride and dtype")
    dtype = dtype_of(args[6])
    if dtype is None:
        return None
    return view(source, dtype, args[1], args[2], args[3], lazy=_lazy(args[7:8]))


def dtype_of(value: Node) -> DType | None:
    """Give the dtype that a `torch.NAME` stands for; None where elements of it are not whole bytes, or unknown."""
    if not isinstance(value, Global) or value.module != "torch":
        return None
    dtype = DType.from_torch_name(value.name)
    return dtype if dtype is not None and dtype.bits >= 8 else None


_NOT_LAZY: frozenset[Literal["conj", "neg"]] = frozenset()
"""One for all tensors: Python makes another at each call, of 200 bytes."""


def _lazy(metadata: Arguments) -> frozenset[Literal["conj", "neg"]]:
    """Read the bits that torch keeps beside a view: `{"conj": True}`."""
    if not metadata or not isinstance(metadata[0], Pairs):
        return _NOT_LAZY
    names: tuple[Literal["conj", "neg"], ...] = ("conj", "neg")
    return frozenset(name for name in names for key, value in metadata[0].items if key == name and value is True)


def unwrap(args: Arguments) -> Node:
    """Make a parameter: the tensor that is its first argument."""
    return args[0] if args and isinstance(args[0], TensorRef | Opaque) else None


def first_argument(args: Arguments) -> Node:
    """Give the list or the tagged value of a TorchScript archive."""
    return args[0] if args else None


def rebuild_from_type(args: Arguments) -> Node:
    """Make a tensor of a subclass, of (function, type, arguments, state): the tensor is what the function makes.

    A subclass that wraps other tensors has no elements of its own: it is a record of its attributes.
    """
    if len(args) != 4 or not isinstance(args[0], Global) or not isinstance(args[2], tuple):
        return None
    if str(args[0]) == "torch._utils._rebuild_wrapper_subclass" and isinstance(args[1], Global):
        return Wrapper(args[1].module, args[1].name, args[2], args[3])
    return construct(args[0], args[2])


def from_device(args: Arguments) -> Node:
    """Make a tensor of another device of (a tensor or array, dtype, device, ...), where the dtype is the same."""
    source = args[0] if len(args) >= 2 else None
    return source if isinstance(source, TensorRef) and dtype_of(args[1]) is source.spec.dtype else None


def mapping(args: Arguments) -> Node:
    """Make a dict, OrderedDict or Counter, empty or of pairs."""
    if not args:
        return Pairs()
    if isinstance(args[0], Pairs):
        return Pairs(list(args[0].items))
    if not isinstance(args[0], list | tuple):
        return None
    pairs = [(pair[0], pair[1]) for pair in args[0] if isinstance(pair, list | tuple) and len(pair) == 2]
    return Pairs(pairs) if len(pairs) == len(args[0]) else None


def default_mapping(args: Arguments) -> Node:
    """Make a defaultdict of (factory[, pairs])."""
    return mapping(args[1:])


def sequence(args: Arguments) -> Node:
    """Make a list or set, empty or of a sequence."""
    if not args:
        return []
    return list(args[0]) if isinstance(args[0], list | tuple) else None


def fixed_sequence(args: Arguments) -> Node:
    """Make a tuple or torch.Size, empty or of a sequence."""
    if not args:
        return ()
    return tuple(args[0]) if isinstance(args[0], list | tuple) else None


def complex_number(args: Arguments) -> Node:
    """Make a complex number of its two parts."""
    if len(args) != 2 or not isinstance(args[0], float) or not isinstance(args[1], float):
        return None
    return complex(args[0], args[1])


def byte_string(args: Arguments) -> Node:
    """Make bytes of nothing, bytes, or text and its encoding; never of a number, which would ask for that many."""
    if not args:
        return b""
    if len(args) == 1 and isinstance(args[0], bytes | Run):
        return args[0]
    return encode(args) if len(args) == 2 else None


def encode(args: Arguments) -> Node:
    """Encode text, the way in which protocol 2 writes bytes."""
    if len(args) == 2 and isinstance(args[0], Run) and args[0].name == "str" and args[1] in ("latin1", "latin-1"):
        return args[0].encoded()
    if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1", "utf-8", "ascii"):
        return None
    try:
        return args[0].encode(str(args[1]))
    except UnicodeEncodeError as error:
        raise MalformedFile(f"a byte string holds a character beyond its encoding: {error.reason}") from error


def device(args: Arguments) -> Node:
    """Give a device by its name, `cuda:0`."""
    return ":".join(str(arg) for arg in args) if all(isinstance(arg, str | int) for arg in args) else None


_BY_MODULE: dict[str, dict[str, Constructor]] = {
    "torch._utils": {
        "_rebuild_tensor": rebuild_tensor,
        "_rebuild_tensor_v2": rebuild_tensor,
        "_rebuild_tensor_v3": rebuild_tensor_with_dtype,
        "_rebuild_parameter": unwrap,
        "_rebuild_parameter_with_state": unwrap,
        "_rebuild_sparse_tensor": rebuild_sparse,
        "_rebuild_qtensor": rebuild_quantised,
        "_rebuild_nested_tensor": rebuild_nested,
        "_rebuild_device_tensor_from_cpu_tensor": from_device,
        "_rebuild_device_tensor_from_numpy": from_device,
    },
    "torch._tensor": {"_rebuild_from_type_v2": rebuild_from_type},
    "torch.nn.parameter": {"Parameter": unwrap, "Buffer": unwrap},
    "torch": {"Size": fixed_sequence, "device": device},
    "collections": {"OrderedDict": mapping, "defaultdict": default_mapping, "Counter": mapping},
    "builtins": {
        "dict": mapping,
        "list": sequence,
        "set": sequence,
        "frozenset": sequence,
        "tuple": fixed_sequence,
        "complex": complex_number,
        "bytes": byte_string,
        "bytearray": byte_string,
    },
    "_codecs": {"encode": encode},
    "torch.jit._pickle": {
        "build_intlist": first_argument,
        "build_doublelist": first_argument,
        "build_boollist": first_argument,
        "build_tensorlist": first_argument,
        "restore_type_tag": first_argument,
    },
}

CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    (module, name): constructor for module, names in _BY_MODULE.items() for name, constructor in names.items()
}

_NUMPY = {"_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype"}
_INERT = {
    "builtins": {"int", "long", "float", "str", "bool", "object", "slice", "range", "type", "NoneType"},
    "torch": {"Tensor", "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric"},
    "torch.serialization": {"_get_layout"},
    "torch.storage": {"TypedStorage"},
    "numpy": {"ndarray", "dtype"},
    "numpy.core.multiarray": _NUMPY,
    "numpy._core.multiarray": _NUMPY,
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}

LOAD_FROM_BYTES = ("torch.storage", "_load_from_bytes")

_NAMES = {
    LOAD_FROM_BYTES,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"),
    ("torch._utils", "_rebuild_wrapper_subclass"),
}
"""Names that say nothing. A call of one that stays a record is listed: no tensor came of it."""

_TENSOR_TYPES = {name.replace("Storage", "Tensor") for name in STORAGE_TYPES}
"""The classes of tensors before 0.4: one for each dtype."""

_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def construct(
    function: Node, args: Arguments, constructors: Mapping[tuple[str, str], Constructor] = CONSTRUCTORS
) -> Node:
    """Give the value of a call: known, or a record of what would have been called."""
    if not isinstance(function, Opaque):
        raise MalformedFile(f"a pickle calls a value that cannot be called, {type(function).__name__}")
    if not isinstance(function, Global):
        return Opaque(function.module, f"{function.name}()", (function, *args))
    if function.module == "copyreg":
        made = _construct_copyreg(function.name, args, constructors)
        if made is not None:
            return made
    constructor = constructors.get((function.module, function.name))
    value = constructor(args) if constructor is not None else None
    return Opaque(function.module, function.name, args) if value is None else value


def _construct_copyreg(name: str, args: Arguments, constructors: Mapping[tuple[str, str], Constructor]) -> Node:
    """Make an object in one of the ways that older protocols have: the class is the first argument."""
    if not args or not isinstance(args[0], Global):
        return None
    if name == "__newobj__":
        return construct(args[0], args[1:], constructors)
    if name == "_reconstructor" and len(args) == 3:
        return construct(args[0], () if args[2] is None else (args[2],), constructors)
    return None


def modern_module(module: str) -> str:
    """Give the Python 3 name of a module of Python 2."""
    return _PYTHON2.get(module, module)


def is_known(value: Opaque) -> bool:
    """Whether a record stands for data: a dtype, a storage, a class of ours, an array of numpy."""
    if isinstance(value, StorageValue | Run | Parts):
        return True
    if is_of_torch(value.module) and (value.name in STORAGE_TYPES or value.name in _TENSOR_TYPES):
        return True
    if value.name in _INERT.get(value.module, ()):
        return True
    if not isinstance(value, Global):
        return False
    if value.module == "torch" and DType.from_torch_name(value.name) is not None:
        return True
    name = (value.module, value.name)
    return name in CONSTRUCTORS or name in _NAMES or value.module == "copyreg"
