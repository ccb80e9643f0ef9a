"""The modules of a TorchScript archive: which of their attributes are parameters, buffers and children.

`data.pkl` holds each module as a record of a class under `__torch__` with all its attributes; the source of that class
lies in the archive as text, `code/__torch__/PACKAGE/MODULE.py`, and begins with its `__parameters__` and `__buffers__`
(torch/csrc/jit/serialization/python_print.cpp, `printModuleMetadata`). The text is searched, never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from msgspec import Struct

from ckptfix.formats.base import Node, Opaque, Pairs

ROOT = "__torch__"

_MAX_SOURCE = 128 << 20
"""Bytes of source text that are searched in one archive, all together."""

_CLASS = re.compile(
    rb"class (\w+)\(Module\):\n  __parameters__ = \[([^\]\n]*)\]\n(?:  __buffers__ = \[([^\]\n]*)\]\n)?"
)
_NAME = re.compile(rb'"([^"]*)"')


class _Class(Struct, frozen=True):
    """The names of the parameters and buffers of a class of modules, in their order."""

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


def sort_attributes(created: Iterable[Opaque], source: Callable[[str, int], bytes | None]) -> None:
    """Give the record of each scripted module the form that a pickled `torch.nn.Module` has.

    Its state is then what `Module.state_dict` walks: `_parameters`, `_buffers` and `_modules`. `source(path, limit)`
    reads a text of the archive, of at most so many bytes. A record whose class is not found stays as it is.
    """
    records = [value for value in created if value.module.startswith(ROOT) and isinstance(value.state, Pairs)]
    classes = _read_classes({value.module for value in records}, source)
    modules = {id(value) for value in records if (value.module, value.name) in classes}
    for value in records:
        found = classes.get((value.module, value.name))
        if found is not None and isinstance(value.state, Pairs):
            value.state = _sorted(value.state, found, modules)


def _sorted(attributes: Pairs, found: _Class, modules: set[int]) -> Pairs:
    by_name = {name: value for name, value in attributes.items if isinstance(name, str)}
    named: set[Node] = {*found.parameters, *found.buffers}
    children = [(name, value) for name, value in attributes.items if id(value) in modules]
    rest = [(name, value) for name, value in attributes.items if id(value) not in modules and name not in named]
    return Pairs(
        [
            ("_parameters", Pairs([(name, by_name.get(name)) for name in found.parameters])),
            ("_buffers", Pairs([(name, by_name.get(name)) for name in found.buffers])),
            ("_modules", Pairs(list(children))),
            *rest,
        ]
    )


def _read_classes(modules: Iterable[str], source: Callable[[str, int], bytes | None]) -> dict[tuple[str, str], _Class]:
    classes: dict[tuple[str, str], _Class] = {}
    left = _MAX_SOURCE
    for module in sorted(modules):
        text = source(f"code/{module.replace('.', '/')}.py", left) or b""
        left -= len(text)
        for name, parameters, buffers in _CLASS.findall(text):
            classes[module, name.decode()] = _Class(_names(parameters), _names(buffers))
    return classes


def _names(listed: bytes) -> tuple[str, ...]:
    return tuple(name.decode("utf-8", "replace") for name in _NAME.findall(listed))
