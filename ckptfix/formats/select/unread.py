"""The tensors and arrays of a state dict that stay records, because no dtype here stands for their elements.

torch has complex32, integers of less than a byte, jagged tensors, and those on the meta device; numpy long doubles,
masked arrays, dates and records. Nothing can be made of them, and so it has to be said that they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptfix.counts import count
from ckptfix.formats.base import Node, Opaque
from ckptfix.formats.pickle.values import Global, Parts, StorageValue, Wrapper, is_of_torch, text_of

_NUMPY = {"_reconstruct", "_frombuffer", "scalar", "_mareconstruct"}
"""What makes an array or a number of numpy: `__reduce__` of ndarray, generic and MaskedArray."""

_SHOWN = 8
_LETTERS = 100
"""Tensors that are named, and characters of a key or of a kind that are shown."""


def is_unread(node: Node) -> bool:
    """Whether a value without tensors of its own is a tensor or an array all the same. Text is none."""
    if not isinstance(node, Opaque) or isinstance(node, Global | Parts):
        return False
    if isinstance(node, Wrapper):
        return True
    if is_of_torch(node.module):
        return node.name.startswith("_rebuild_")
    if node.module.partition(".")[0] != "numpy" or node.name not in _NUMPY:
        return False
    return (_element(node) or "")[:1] not in ("U", "S", "O")


def describe_unread(unread: Mapping[str, Opaque]) -> tuple[str, ...]:
    """Give a note for each of the first few, and one for how many more there are."""
    notes = [
        f"'{key[:_LETTERS]}' is a tensor that ckptfix does not read ({_kind(value)[:_LETTERS]}): it is left out"
        for key, value in list(unread.items())[:_SHOWN]
    ]
    rest = len(unread) - _SHOWN
    return (*notes, f"{count(rest, 'more tensor')} that ckptfix does not read: left out") if rest > 0 else tuple(notes)


def describe_beside(path: str, unread: Mapping[str, Opaque]) -> tuple[str, ...]:
    """Note the tensors that lie outside of the state dict at `path`, and keep what holds them from being one."""
    if not unread:
        return ()
    named = [f"'{key[:_LETTERS]}' ({_kind(value)[:_LETTERS]})" for key, value in list(unread.items())[:_SHOWN]]
    more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
    others = count(len(unread), "tensor")
    return (f"only '{path}' is taken; beside it ckptfix does not read {others}: {', '.join(named)}{more}",)


def _kind(value: Opaque) -> str:
    """Say what is special: the dtype, or the class where that is it."""
    if value.name == "_rebuild_meta_tensor_no_storage":
        return "on the meta device, without elements"
    args = value.args if isinstance(value.args, tuple) else ()
    if value.module.partition(".")[0] == "numpy":
        # A subclass of ndarray is the first argument.
        if args and isinstance(args[0], Global) and str(args[0]) != "numpy.ndarray":
            return str(args[0])
        return f"numpy's dtype {_element(value) or 'unknown'}"
    dtypes = [str(arg) for arg in args if isinstance(arg, Global) and arg.module == "torch"]
    storages = [arg.name for arg in args if isinstance(arg, StorageValue)]
    return next(iter(dtypes + storages), str(value))


def _element(array: Opaque) -> str | None:
    """Give numpy's code of an array's dtype, `f16`; None where it is not found."""
    given = (*(array.args if isinstance(array.args, tuple) else ()),)
    given += array.state if isinstance(array.state, tuple) else ()
    for value in given:
        if isinstance(value, Opaque) and str(value) == "numpy.dtype" and isinstance(value.args, tuple):
            return text_of(value.args[0]) if value.args else None
    return None
