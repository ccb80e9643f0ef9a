"""`py:module:factory` and `py:./file.py:factory`: examples from the user's own code.

The factory returns `(train, test)`: two sequences of `(x, label)` pairs, a `torch.utils.data.Dataset` for one.
`x` is a tensor, or a mapping of tensors that becomes the keyword arguments of the model.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torch.utils.data import default_collate

from ckptfix.errors import InvalidCall, SourceNotFound
from ckptfix.keys import nearest_keys
from ckptfix.proof.data.base import Data, Inputs, Wish, count_classes

# The user's objects are of any type; `_check` looks at what is used of them.
_Pairs = Sequence[Any]


class PairExamples(Struct, frozen=True):
    """Examples that the user's sequence gives one by one, as `(x, label)`."""

    pairs: _Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def gather(self, rows: Sequence[int]) -> tuple[Inputs, Tensor]:
        """Stack the examples of those rows."""
        x, y = default_collate([tuple(self.pairs[row]) for row in rows])
        return x, torch.as_tensor(y, dtype=torch.int64)


def load(body: str, wish: Wish) -> Data:
    """Call the factory, with those of channels, height, width, classes and seed that its signature names.

    Raises InvalidCall for a factory that is not there or returns something else, SourceNotFound for no such file.
    """
    uri = f"py:{body}"
    place, _, name = body.rpartition(":")
    if not place or not name:
        raise InvalidCall(f"'{uri}' names no factory", hint="write py:module:factory or py:./file.py:factory")
    factory = _find_factory(_import(place, uri), name, uri)
    offered = {key: getattr(wish, key) for key in ("channels", "height", "width", "classes", "seed")}
    named = inspect.signature(factory).parameters
    made = factory(**{key: value for key, value in offered.items() if key in named})
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise InvalidCall(f"{uri}: gave {type(made).__name__}, not (train, test)", hint=_SHAPE)
    train, test = (_check(side, part, uri) for side, part in zip(("train", "test"), made, strict=True))
    available = max(train[1], test[1]) + 1
    if available > wish.classes:
        raise InvalidCall(f"{uri}: label {available - 1} for a model with {wish.classes} outputs")
    classes = count_classes(available, wish, uri)
    return Data(uri, train[0], test[0], tuple(str(label) for label in range(classes)), available)


_SHAPE = "a factory returns two sequences of (x, label) pairs"


def _import(place: str, uri: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise
            raise InvalidCall(f"{uri}: no module named '{error.name}'", hint="a file reads ./file.py") from error
    path = Path(place).expanduser()
    spec = spec_from_file_location(f"ckptfix_data_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SourceNotFound(f"{uri}: no such file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    spec.loader.exec_module(module)
    return module


def _find_factory(module: ModuleType, name: str, uri: str) -> Callable[..., object]:
    factory = getattr(module, name, None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]  # any callable is called; what it returns is checked
    near = nearest_keys(name, [key for key, value in vars(module).items() if callable(value)])
    hint = f"nearest: {', '.join(near)}" if near else None
    raise InvalidCall(f"{uri}: no function '{name}' in {module.__file__ or module.__name__}", hint=hint)


def _check(side: str, part: Any, uri: str) -> tuple[PairExamples, int]:
    """Give the examples and their highest label, having looked at each of them once."""
    if not hasattr(part, "__len__") or not hasattr(part, "__getitem__") or not len(part):
        raise InvalidCall(f"{uri}: the {side} set is no sequence with examples in it", hint=_SHAPE)
    highest = 0
    for row in range(len(part)):
        pair = part[row]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidCall(f"{uri}: {side} example {row} is no (x, label) pair", hint=_SHAPE)
        x, label = pair
        if not isinstance(x, Tensor) and not isinstance(x, Mapping):
            hint = "x is a tensor, or a mapping of tensors"
            raise InvalidCall(f"{uri}: x of {side} example {row} is a {type(x).__name__}", hint=hint)
        if not _is_label(label):
            raise InvalidCall(f"{uri}: the label of {side} example {row} is {label!r}", hint="labels count from 0")
        highest = max(highest, int(label))
    return PairExamples(part), highest


def _is_label(label: Any) -> bool:
    if isinstance(label, Tensor):
        return label.numel() == 1 and not label.is_floating_point() and int(label) >= 0
    return hasattr(label, "__index__") and int(label) >= 0
