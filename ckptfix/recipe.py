"""Recipes: an ordered list of rules, with the line that each stands on."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from ckptfix.digest import hash_document
from ckptfix.document import Document, parse_document, read_document, validate
from ckptfix.errors import Origin
from ckptfix.keys import VarValue
from ckptfix.recipes import recipe_path
from ckptfix.rules import rule_types
from ckptfix.rules.base import Rule

_NAME = re.compile(r"[\w-]+")
"""What a shipped recipe may be called: a name without a dot or a slash."""


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


def _refuse_bool(value: object) -> object:
    """Keep `true`, which Python takes for 1, from being a version. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"the version is 1, not {str(value).lower()}")
    return value


Variable = Annotated[
    Any, BeforeValidator(read_variable), WithJsonSchema({"type": ["integer", "string", "array", "object"]})
]
Prefixes = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class SourceChoice(BaseModel):
    """Which state dict of the file, and which prefixes come off its keys before the rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: str | None = Field(default=None, description="Dotted path of the state dict in the file; '.' is all of it.")
    strip: Prefixes = Field(default=(), description="Prefixes to remove, in order, from every key that has one.")


class RecipeDocument(BaseModel):
    """A recipe as it is written. `recipe_model` adds the rules, whose union is found at run time."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="ckptfix recipe")

    ckptfix: Annotated[Literal[1], BeforeValidator(_refuse_bool)] = Field(description="Version of the recipe language.")
    description: str | None = Field(default=None, description="What the recipe converts.")
    vars: dict[str, Variable] = Field(
        default_factory=dict, description="Integers, lists, maps, or the text target.config.NAME."
    )
    source: SourceChoice = Field(
        default_factory=SourceChoice, description="Which state dict of the file, and which prefixes come off its keys."
    )


@cache
def recipe_model() -> type[RecipeDocument]:
    """Build the schema over all ops."""
    union: Any = reduce(operator.or_, rule_types().values())  # a type that exists at run time only
    rules: Any = (tuple[Annotated[union, Field(discriminator="op")], ...], Field(default=(), description="In order."))
    return create_model("Recipe", __base__=RecipeDocument, rules=rules)


@dataclass(frozen=True)
class Recipe:
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
    match recipe:
        case None:
            return Recipe(digest=hash_document(None))
        case Recipe():
            return recipe
        case Path():
            return _check(read_document(recipe))
        case str() if "\n" in recipe:
            return _check(parse_document(recipe, "recipe"))
        case str() if _NAME.fullmatch(recipe) and not Path(recipe).exists():
            return _check(parse_document(recipe_path(recipe).read_text(encoding="utf-8"), f"{recipe}.yaml"))
        case str():
            return _check(read_document(Path(recipe)))
    return _check(Document("recipe", dict(recipe)))


def _check(document: Document) -> Recipe:
    checked = validate(recipe_model(), document)
    rules: tuple[Rule, ...] = checked.rules  # type: ignore[attr-defined]
    origins = tuple(
        Origin(document.file, document.line_of(("rules", number)) or number + 1, rule.name)
        for number, rule in enumerate(rules)
    )
    return Recipe(
        file=document.file,
        rules=rules,
        origins=origins,
        variables=checked.vars,
        variables_origin=Origin(document.file, document.line_of(("vars",)), "vars"),
        source=checked.source,
        source_origin=Origin(document.file, document.line_of(("source",)), "source"),
        description=checked.description,
        digest=hash_document(document.value),
    )
