"""Documents that users write: YAML 1.2 or JSON in, plain values and the line of every node out.

Aliases and duplicate keys are errors: an alias can blow a few hundred bytes up to gigabytes, and of two equal
keys a loader would silently keep one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ckptfix.errors import Origin, ReadFailed, RecipeSchemaError, RecipeSyntaxError, SourceNotFound

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]
"""The way to a node: mapping keys and list positions, from the top."""

_LARGEST = 10 << 20
_DEEPEST = 50


@dataclass(frozen=True)
class Document:
    """A parsed text. `lines` maps the way to each node to its line, from 1; `lines[()]` is the first."""

    file: str
    value: Any  # whatever the text holds; a pydantic model narrows it
    lines: Mapping[Place, int] = field(default_factory=dict)

    def line_of(self, place: Place) -> int | None:
        """Give the line of a node, or of the nearest node around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def read_document(path: Path) -> Document:
    """Read a file. Raises SourceNotFound, ReadFailed or RecipeSyntaxError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise SourceNotFound("no such file", where=str(path)) from error
    except OSError as error:
        raise ReadFailed((error.strerror or str(error)).lower(), where=str(path)) from error
    if len(data) > _LARGEST:
        raise RecipeSyntaxError(f"larger than {_LARGEST >> 20} MiB", where=str(path), hint="this is no recipe")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeSyntaxError(f"byte {error.start} is not UTF-8", where=str(path)) from error
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Document:
    """Parse YAML or JSON text. Raises RecipeSyntaxError with the line."""
    if text.lstrip().startswith("{") and file.endswith(".json"):
        text = _check_json(text, file)
    return _Composer(file).compose(text)


def _check_json(text: str, file: str) -> str:
    """Hold a `.json` file to JSON's own rules, then make it YAML: a tab may not indent there."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeSyntaxError(error.msg.lower(), where=Origin(file, error.lineno)) from error
    except RecursionError as error:
        raise RecipeSyntaxError(f"nests more than {_DEEPEST} deep", where=file) from error
    return text.replace("\t", " ")


class _Composer:
    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Place, int] = {}

    def compose(self, text: str) -> Document:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError
        from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

        yaml = YAML(typ="safe", pure=True)
        try:
            depth = 0
            for event in yaml.parse(text):
                if isinstance(event, AliasEvent):
                    raise self.error(
                        "aliases are not allowed",
                        event.start_mark.line,
                        "write the value out; quote a text that starts with * or &",
                    )
                depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
                if depth > _DEEPEST:
                    raise self.error(f"nests more than {_DEEPEST} deep", event.start_mark.line)
            node = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else 0
            hint = "quote texts that hold { } [ ] * & : or #"
            raise self.error(str(error.problem or error.context), line, hint) from error
        except (YAMLError, ValueError) as error:
            raise RecipeSyntaxError(str(error).splitlines()[0], where=self.file) from error
        value = None if node is None else self.value(node, ())
        return Document(self.file, value, self.lines)

    def value(self, node: Any, place: Place) -> Any:  # ruamel's nodes carry no types
        """Make the plain value of a node, and note its line."""
        self.lines[place] = node.start_mark.line + 1
        if node.id == "sequence":
            return [self.value(child, (*place, number)) for number, child in enumerate(node.value)]
        if node.id == "mapping":
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line
                if key_node.id != "scalar":
                    raise self.error("a key must be a text", line, "quote keys that hold { } or [ ]")
                key = key_node.value
                if key in result:
                    raise self.error(f"the key '{key}' stands twice", line)
                result[key] = self.value(value_node, (*place, key))
                self.lines[(*place, key)] = line + 1
            return result
        return self.scalar(node)

    def scalar(self, node: Any) -> str | int | float | bool | None:
        """Resolve a scalar by YAML 1.2's core schema: `no` is a text, `012` is 12."""
        kind = node.tag.rpartition(":")[2]
        text = node.value
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return bool(text.lower() == "true")
                case "int":
                    return _integer(text)
                case "float":
                    return _real(text)
                case "str" | "timestamp":
                    return str(text)
        except ValueError as error:
            raise self.error(f"'{text[:40]}' is no number", node.start_mark.line) from error
        raise self.error(f"the tag '{node.tag}' is not allowed", node.start_mark.line)

    def error(self, message: str, line: int, hint: str | None = None) -> RecipeSyntaxError:
        """Make an error at a line that counts from 0."""
        return RecipeSyntaxError(message, where=Origin(self.file, line + 1), hint=hint)


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    bare = digits.lstrip("+-")
    return sign * int(bare, {"0x": 16, "0o": 8, "0b": 2}.get(bare[:2].lower(), 10))


def _real(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


M = TypeVar("M", bound="BaseModel")


def validate(model: type[M], document: Document) -> M:
    """Check a document against a pydantic model.

    Raises RecipeSchemaError with the line of the first fault; `parts` holds all of them where there are more.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        faults = tuple(_explain(model, document, fault) for fault in _worst(document, error))
        first = faults[0]
        raise RecipeSchemaError(first.message, where=first.where, hint=first.hint, parts=faults) from error


def _worst(document: Document, error: ValidationError) -> list[Any]:
    """Keep one fault a place, misspelt fields first.

    A union reports a fault for each of its members, and a misspelt field is reported a second time as missing.
    """
    seen: dict[Place, Any] = {}
    misspelt: set[Place] = set()
    for fault in sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden"):
        place, _ = _place_in(document, tuple(fault["loc"]))
        if fault["type"] == "missing":
            if place not in misspelt:
                seen[(*place, fault["loc"][-1])] = fault
        elif not any(place[: len(other)] == other or other[: len(place)] == place for other in seen):
            seen[place] = fault
            if fault["type"] == "extra_forbidden":
                misspelt.add(place[:-1])
    return list(seen.values())


def _explain(model: type[BaseModel], document: Document, fault: Any) -> RecipeSchemaError:
    place, op = _place_in(document, tuple(fault["loc"]))
    name = place[-1] if place and isinstance(place[-1], str) else ""
    context = fault.get("ctx", {})
    hint: str | None = None
    match fault["type"]:
        case "extra_forbidden":
            message = f"unknown field '{name}'"
            hint = _hint(name, _fields(model, op))
        case "missing":
            message = f"the field '{fault['loc'][-1]}' is missing"
        case "union_tag_invalid":
            tags = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
            message = f"unknown op '{context['tag']}'"
            hint = _hint(context["tag"], tags)
        case "union_tag_not_found":
            message = "a rule needs an 'op'"
        case "value_error":
            message = f"{name}: {context['error']}" if name else str(context["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"{name or 'the document'} must be a mapping"
        case _:
            message = f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, not {_short(fault['input'])}"
    return RecipeSchemaError(message, where=Origin(document.file, document.line_of(place), op), hint=hint)


def _place_in(document: Document, loc: Place) -> tuple[Place, str | None]:
    """Follow pydantic's location as far as it names nodes of the text: it also names union members."""
    place: list[str | int] = []
    op: str | None = None
    value = document.value
    for part in loc:
        if not _has(value, part):
            continue
        value = value[part]
        place.append(part)
        if isinstance(value, Mapping) and isinstance(value.get("op"), str):
            op = value["op"]
    return tuple(place), op


def _has(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _fields(model: type[BaseModel], op: str | None) -> list[str]:
    """List the fields of the model, or of the rule with this op."""
    schema = model.model_json_schema()
    if op is None:
        return list(schema["properties"])
    rules = [part["properties"] for part in schema.get("$defs", {}).values() if "properties" in part]
    return [name for rule in rules if rule.get("op", {}).get("const") == op for name in rule]


def _hint(name: str, choices: list[str]) -> str | None:
    close = get_close_matches(name, choices, 1, 0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(choices)}" if choices else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
