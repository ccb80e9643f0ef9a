"""The recipes that ship with the package: one YAML file each, named after what it converts."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from ckptfix.errors import InvalidCall

_FOLDER = Path(__file__).parent


def list_recipes() -> tuple[str, ...]:
    """Name the shipped recipes, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def recipe_path(name: str) -> Path:
    """Give the file of a shipped recipe. Raises InvalidCall with the nearest names."""
    names = list_recipes()
    if name in names:
        return _FOLDER / f"{name}.yaml"
    near = get_close_matches(name, names, n=3)
    hint = f"nearest: {', '.join(near)}" if near else "`ckptfix recipes ls` lists them"
    raise InvalidCall(f"'{name}' is no shipped recipe", hint=hint)
