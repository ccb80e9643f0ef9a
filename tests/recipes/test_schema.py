"""The JSON Schema of a recipe says what the parser does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from ckptfix.cli.commands.schema import schema
from ckptfix.cli.main import run
from ckptfix.document import parse_document, read_document
from ckptfix.errors import RecipeSchemaError
from ckptfix.recipe import load_recipe
from ckptfix.recipe.document import recipe_model
from ckptfix.recipes import list_recipes, recipe_path
from ckptfix.rules import rule_types

SCHEMA = schema("recipe")
VALIDATOR = Draft202012Validator(SCHEMA)
SHIPPED = {name: read_document(recipe_path(name)).value for name in list_recipes()}
EXAMPLES = [
    {"ckptfix": 1, "rules": [parse_document(example.rule, "example").value]}
    for rule in rule_types().values()
    for example in rule.examples
    if example.fails is None
]
WHOLE = {
    "ckptfix": 1,
    "description": "every field of the document",
    "vars": {"heads": 12, "stage": [3, 4], "names": {"a": "b"}, "width": "target.config.hidden_size"},
    "source": {"select": "model_ema", "strip": ["module."]},
    "rules": [{"op": "drop", "keys": "a", "optional": True}],
}
SOUND = [*SHIPPED.values(), *EXAMPLES, WHOLE]
WRONG: list[Any] = [None, True, 1.5, -3, 7, "text", [], {}, ["a", 3], {"a": None}, {"a": "b"}]


def fields(node: object, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every field of a schema, nested ones too, with its place."""
    if isinstance(node, dict):
        for name, field in node.get("properties", {}).items():
            yield f"{place}/{name}", field
        for name, child in node.items():
            yield from fields(child, f"{place}/{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from fields(child, f"{place}/{number}")


def faults(recipe: object) -> list[str]:
    """Give the types of what the parser finds wrong; `value_error` is what a function of ours says."""
    try:
        recipe_model().model_validate(recipe)
    except ValidationError as error:
        return [fault["type"] for fault in error.errors()]
    return []


def test_the_command_prints_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "recipe"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
    Draft202012Validator.check_schema(SCHEMA)


def test_every_field_is_described() -> None:
    found = dict(fields(SCHEMA))
    assert {f"/$defs/{rule.__name__}/op" for rule in rule_types().values()} <= found.keys()
    assert {"/ckptfix", "/rules", "/$defs/SourceDocument/strip"} <= found.keys()
    assert [place for place, field in found.items() if not field.get("description")] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(SHIPPED[name])] == []


@pytest.mark.parametrize("recipe", [*EXAMPLES, WHOLE], ids=lambda recipe: str(recipe["rules"])[:60])
def test_every_example_is_valid(recipe: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(recipe) and not faults(recipe)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"ckptfix": 2},
        {"ckptfix": True},
        {"ckptfix": 1, "rulez": []},
        {"ckptfix": 1, "rules": {"op": "drop"}},
        {"ckptfix": 1, "source": {"selct": "a"}},
        {"ckptfix": 1, "source": {"strip": 3}},
        {"ckptfix": 1, "vars": {"a": 1.5}},
        {"ckptfix": 1, "rules": ["drop"]},
        {"ckptfix": 1, "rules": [{"keys": "a"}]},
        {"ckptfix": 1, "rules": [{"op": "dorp", "keys": "a"}]},
        {"ckptfix": 1, "rules": [{"op": "drop", "kees": "a"}]},
        {"ckptfix": 1, "rules": [{"op": "drop", "keys": "a", "kees": "a"}]},
        {"ckptfix": 1, "rules": [{"op": "drop", "keys": []}]},
        {"ckptfix": 1, "rules": [{"op": "drop", "keys": "a", "when": "mismatch"}]},
        {"ckptfix": 1, "rules": [{"op": "drop", "keys": "a", "optional": "no"}]},
        {"ckptfix": 1, "rules": [{"op": "rename", "map": {"a": 3}}]},
        {"ckptfix": 1, "rules": [{"op": "fill", "keys": "a", "value": True}]},
        {"ckptfix": 1, "rules": [{"op": "fill", "keys": "a", "value": "normal", "std": 0}]},
        {"ckptfix": 1, "rules": [{"op": "take", "keys": "a", "layout": "n", "axis": "n", "index": [-1]}]},
        {"ckptfix": 1, "rules": [{"op": "resize", "keys": "a", "layout": "n", "axes": [], "mode": "crop"}]},
        {"ckptfix": 1, "rules": [{"op": "rearrange", "keys": "a", "layout": "n -> n", "sizes": {"n": 1.5}}]},
    ],
    ids=str,
)
def test_a_broken_recipe_is_refused_by_both(broken: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(broken)
    with pytest.raises(RecipeSchemaError):
        load_recipe(broken)


def places(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the way to every node."""
    yield place
    if isinstance(value, dict | list):
        for step, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*place, step))


@st.composite
def broken_in_one_place(draw: st.DrawFn) -> object:
    """Take a sound recipe, and leave a node out, put another value there, or add a field."""
    recipe: Any = {"recipe": copy.deepcopy(draw(st.sampled_from(SOUND)))}
    *way, last = draw(st.sampled_from(list(places(recipe))[1:]))
    node = recipe
    for step in way:
        node = node[step]
    match draw(st.sampled_from(["leave out", "replace", "add"])):
        case "leave out" if way:
            del node[last]
        case "add" if isinstance(node[last], dict):
            node[last]["unknown"] = draw(st.sampled_from(WRONG))
        case _:
            node[last] = draw(st.sampled_from(WRONG))
    return recipe["recipe"]


@given(broken_in_one_place())
@settings(max_examples=500, deadline=None)
def test_schema_and_parser_agree(recipe: object) -> None:
    found = faults(recipe)
    if VALIDATOR.is_valid(recipe):
        assert set(found) <= {"value_error"}  # what a pattern or a layout means is beyond a schema
    else:
        assert found
