"""Functions for the op `call`: one file each here, and those that other packages bring.

A package brings its own under the entry point group `ckptfix.rules`: a name, and an object of the `Function` protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, cast

from ckptfix.errors import RuleError
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

GROUP = "ckptfix.rules"

Arguments = Mapping[str, Any]
"""JSON values, as the recipe has them."""


class Function(Protocol):
    """What `call` calls. Both see the tensors in the order of `from`, and give theirs in the order of `to`."""

    def infer(self, specs: Sequence[TensorSpec], args: Arguments) -> Sequence[TensorSpec]:
        """Plan the outputs from shapes and dtypes alone. Raises RuleError for what does not fit together."""

    def compute(self, tensors: Sequence[Tensor], args: Arguments) -> Sequence[Tensor]:
        """Compute them."""


def list_functions() -> list[str]:
    """Name all functions, those of other packages too."""
    own = [module.name for module in iter_modules(__path__)]
    return sorted({*own, *(entry.name for entry in entry_points(group=GROUP))})


@cache
def find_function(name: str) -> Function:
    """Find a function. Raises RuleError with the nearest names."""
    if name in [module.name for module in iter_modules(__path__)]:
        return cast(Function, import_module(f"{__name__}.{name}"))
    for entry in entry_points(group=GROUP, name=name):
        return cast(Function, entry.load())
    close = get_close_matches(name, list_functions(), 3, 0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(list_functions())}"
    raise RuleError(f"no function '{name}' is installed", hint=hint)


def expect(condition: object, message: str) -> None:
    """Raise RuleError unless the condition holds."""
    if not condition:
        raise RuleError(message)


def read_arguments(args: Arguments, defaults: Arguments) -> dict[str, Any]:
    """Lay arguments over their defaults. Raises RuleError for one that has none, or is of another type."""
    for name, value in args.items():
        expect(name in defaults, f"no argument '{name}'; there are {', '.join(defaults)}")
        wanted = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        expect(
            isinstance(value, wanted) and not isinstance(value, bool), f"args.{name}: {value!r} is of the wrong type"
        )
    return {**defaults, **args}
