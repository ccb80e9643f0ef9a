"""Read a recipe that is given as a file, a name, a text or plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptfix.digest import hash_document
from ckptfix.document import Document, parse_document, read_document, validate
from ckptfix.errors import Origin
from ckptfix.recipe import Recipe, SourceChoice
from ckptfix.recipe.document import recipe_model
from ckptfix.recipes import recipe_path
from ckptfix.rules.base import Rule

_NAME = re.compile(r"[\w-]+")
"""What a shipped recipe may be called: a name without a dot or a slash."""


def read_recipe(recipe: Path | str | Mapping[str, Any]) -> Recipe:
    """Parse and check a recipe. Raises what `load_recipe` raises."""
    document = _parse(recipe)
    checked = validate(recipe_model(_ops_of(document.value)), document)
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
        source=SourceChoice(checked.source.select, checked.source.strip),
        source_origin=Origin(document.file, document.line_of(("source",)), "source"),
        description=checked.description,
        digest=hash_document(document.value),
    )


def _parse(recipe: Path | str | Mapping[str, Any]) -> Document:
    match recipe:
        case Path():
            return read_document(recipe)
        case str() if "\n" in recipe:
            return parse_document(recipe, "recipe")
        case str() if _NAME.fullmatch(recipe) and not Path(recipe).exists():
            return parse_document(recipe_path(recipe).read_text(encoding="utf-8"), f"{recipe}.yaml")
        case str():
            return read_document(Path(recipe))
    return Document("recipe", dict(recipe))


def _ops_of(value: object) -> frozenset[str] | None:
    """List the ops that a document uses; None where it does not say which for each of its rules."""
    rules = value.get("rules", ()) if isinstance(value, Mapping) else None
    if not isinstance(rules, list | tuple):
        return None
    ops = [rule.get("op") if isinstance(rule, Mapping) else None for rule in rules]
    return frozenset(op for op in ops if isinstance(op, str)) if all(isinstance(op, str) for op in ops) else None
