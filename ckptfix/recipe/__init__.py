"""Recipes: an ordered list of rules, with the line that each stands on. No recipe is one without rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ckptfix.digest import hash_document
from ckptfix.errors import Origin
from ckptfix.recipe.variables import read_variable

if TYPE_CHECKING:
    from ckptfix.keys import VarValue
    from ckptfix.rules.base import Rule

__all__ = ["Recipe", "SourceChoice", "load_recipe", "read_variable"]


class SourceChoice(Struct, frozen=True):
    """Which state dict of the file, and which prefixes come off its keys before the rules."""

    select: str | None = None
    strip: tuple[str, ...] = ()


class Recipe(Struct, frozen=True):
    """A checked recipe. `origins[n]` is where `rules[n]` stands."""

    file: str = "no recipe"
    rules: tuple[Rule, ...] = ()
    origins: tuple[Origin, ...] = ()
    variables: Mapping[str, VarValue] = field(default_factory=dict)
    variables_origin: Origin = field(default_factory=lambda: Origin("no recipe"))
    source: SourceChoice = field(default_factory=SourceChoice)
    source_origin: Origin = field(default_factory=lambda: Origin("no recipe"))
    description: str | None = None
    digest: str = ""


def load_recipe(recipe: Recipe | Path | str | Mapping[str, Any] | None) -> Recipe:
    """Read a recipe from a file, by the name of a shipped one, from a text of several lines, or from plain values.

    A file goes before a shipped recipe of the same name. Raises InvalidCall for a name that is neither, SourceNotFound,
    ReadFailed, RecipeSyntaxError or RecipeSchemaError.
    """
    if recipe is None:
        return Recipe(digest=hash_document(None))
    if isinstance(recipe, Recipe):
        return recipe
    from ckptfix.recipe.read import read_recipe

    return read_recipe(recipe)
