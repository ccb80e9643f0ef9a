"""A recipe as it is written: the pydantic models, which give the JSON Schema too."""

from __future__ import annotations

import operator
from collections.abc import Set
from functools import cache, reduce
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from ckptfix.recipe.variables import read_variable
from ckptfix.rules import rule_types


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


class SourceDocument(BaseModel):
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
    source: SourceDocument = Field(
        default_factory=SourceDocument,
        description="Which state dict of the file, and which prefixes come off its keys.",
    )


@cache
def recipe_model(ops: Set[str] | None = None) -> type[RecipeDocument]:
    """Build the schema over the ops that a recipe uses, over all unless they are given and known."""
    types = rule_types(ops)
    union: Any = reduce(operator.or_, types.values())  # a type that exists at run time only
    rule: Any = Annotated[union, Field(discriminator="op")] if len(types) > 1 else union
    rules: Any = (tuple[rule, ...], Field(default=(), description="In order."))
    return create_model("Recipe", __base__=RecipeDocument, rules=rules)
