"""Check a document against a pydantic model, and say what is wrong in the words and lines of the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from ckptfix.document.parse import Document, Place
from ckptfix.errors import Origin, RecipeSchemaError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")

_MOST_FAULTS = 20
"""Faults of one text that are told."""


def validate(model: type[M], document: Document) -> M:
    """Check a document against a pydantic model.

    Raises RecipeSchemaError with the line of the first fault; `parts` holds all of them where there are more.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        groups = _faults(error, document)
        faults = tuple(_explain(model, document, group) for group in groups[:_MOST_FAULTS])
        first = faults[0]
        if len(groups) > _MOST_FAULTS:
            faults += (RecipeSchemaError(f"and {len(groups) - _MOST_FAULTS} more faults", where=document.file),)
        raise RecipeSchemaError(first.message, where=first.where, hint=first.hint, parts=faults) from error


class _Fault(Struct, frozen=True):
    """What pydantic says of one node: `place` as far as the text has it, `field` as the user knows it."""

    raw: Any  # pydantic's own dictionary
    place: Place
    op: str | None
    field: str

    @property
    def subject(self) -> Place:
        """The place, and behind it the field that is missing there."""
        return (*self.place, self.field) if self.raw["type"] == "missing" else self.place


def _faults(error: ValidationError, document: Document) -> list[list[_Fault]]:
    """Gather the faults of each node, since a union reports one for each of its members; misspelt fields come first.

    A fault inside a node explains it better than one that calls the whole node wrong, and a misspelt field better
    than one that is missing for it.
    """
    groups: dict[Place, list[_Fault]] = {}
    misspelt: dict[Place, list[str]] = {}
    for raw in sorted(error.errors(include_url=False), key=lambda raw: raw["type"] != "extra_forbidden"):
        fault = _locate(raw, document)
        if raw["type"] == "extra_forbidden":
            misspelt.setdefault(fault.place[:-1], []).append(str(fault.place[-1]))
        elif raw["type"] == "missing" and _close(str(raw["loc"][-1]), misspelt.get(fault.place, [])):
            continue
        groups.setdefault(fault.subject, []).append(fault)
    around = {place[:depth] for place in groups for depth in range(len(place))}
    return [group for place, group in groups.items() if place not in around]


def _locate(raw: Any, document: Document) -> _Fault:
    """Follow pydantic's location as far as it names nodes of the text: it also names union members."""
    place: list[str | int] = []
    op: str | None = None
    inside = 0
    value = document.value
    for part in raw["loc"]:
        if not _has(value, part):
            continue
        value = value[part]
        place.append(part)
        if isinstance(part, int) and isinstance(value, Mapping) and isinstance(value.get("op"), str):
            op, inside = value["op"], len(place)
    names = [str(part) for part in place[inside:] if isinstance(part, str)]
    if raw["type"] == "missing":
        names.append(str(raw["loc"][-1]))
    field = ".".join(names[:1] if op else names)
    in_list = bool(place) and isinstance(place[-1], int) and bool(field) and raw["type"] != "missing"
    return _Fault(raw, tuple(place), op, f"an entry of {field}" if in_list else field)


def _has(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _explain(model: type[BaseModel], document: Document, group: list[_Fault]) -> RecipeSchemaError:
    fault = group[0]
    raw, name = fault.raw, fault.field
    context = raw.get("ctx", {})
    hint: str | None = None
    match raw["type"]:
        case "extra_forbidden":
            message = f"unknown field '{fault.place[-1]}'"
            hint = _hint(str(fault.place[-1]), _fields(model, fault))
        case "missing":
            message = f"the field '{name}' is missing"
            hint = "begin with: ckptfix: 1" if name == "ckptfix" else None
        case "union_tag_invalid":
            message = f"unknown op '{context['tag']}'"
            hint = _hint(context["tag"], [tag.strip("'") for tag in context["expected_tags"].split(", ")])
        case "union_tag_not_found":
            message = "a rule needs an 'op'"
        case "value_error":
            message = f"{name.removeprefix('an entry of ')}: {context['error']}" if name else str(context["error"])
        case "too_short":
            message = f"{name} is empty"
        case "model_type" | "model_attributes_type" | "dict_type" if not fault.place:
            message = "the document is empty" if document.value is None else "the document must be a mapping"
        case "model_type" | "model_attributes_type":
            message = f"{name} should be a mapping, not {_short(raw['input'])}"
        case _:
            wanted = " or ".join(dict.fromkeys(_wanted(each.raw) for each in group))
            message = f"{name} should be {wanted}, not {_short(raw['input'])}"
    return RecipeSchemaError(message, where=Origin(document.file, document.line_of(fault.place), fault.op), hint=hint)


_KINDS = {
    "int": "an integer",
    "float": "a number",
    "string": "a text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
}
"""The words for pydantic's types: `int_type`, `list_type`, ..."""


def _wanted(raw: Any) -> str:
    kind = str(raw["type"]).removesuffix("_type")
    return _KINDS.get(kind) or str(raw["msg"]).removeprefix("Input should be ")


def _fields(model: type[BaseModel], fault: _Fault) -> list[str]:
    """List the fields of the mapping that the fault lies in."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    if fault.op:
        rules = [part.get("properties", {}) for part in definitions.values()]
        return [name for rule in rules if rule.get("op", {}).get("const") == fault.op for name in rule]
    node = schema
    for part in fault.place[:-1]:
        inner = node.get("properties", {}).get(part, {})
        found = [option["$ref"] for option in (inner, *inner.get("anyOf", ())) if "$ref" in option]
        if not found:
            return []
        node = definitions[found[0].rpartition("/")[2]]
    return list(node.get("properties", {}))


def _hint(name: str, choices: list[str]) -> str | None:
    if close := _close(name, choices):
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(choices)}" if choices else None


def _close(name: str, choices: list[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, choices, 1, 0.5)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
