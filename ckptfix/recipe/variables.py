"""The values that a variable of a recipe may have."""

from __future__ import annotations

from collections.abc import Mapping

from ckptfix.keys import VarValue


def read_variable(value: object) -> VarValue:
    """Give the value of a variable, with texts for the keys of maps. Raises ValueError for a value of another kind."""
    match value:
        case bool():
            pass
        case int() | str():
            return value
        case list() | tuple():
            return [read_variable(entry) for entry in value]
        case Mapping():
            return {str(name): read_variable(entry) for name, entry in value.items()}
    raise ValueError(f"{value!r} is no integer, text, list or map")
