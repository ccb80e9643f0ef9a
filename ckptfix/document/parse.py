"""Documents that users write: YAML 1.2 or JSON in, plain values and the line of every node out.

Aliases and duplicate keys are errors: an alias can blow a few hundred bytes up to gigabytes, and of two equal
keys a loader would silently keep one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ckptfix.errors import Origin, ReadFailed, RecipeSyntaxError, SourceNotFound

Place = tuple[str | int, ...]
"""The way to a node: mapping keys and list positions, from the top."""

_LARGEST = 2 << 20
_DEEPEST = 50
_LONG_WORD = re.compile(r"[^\s,:{}\[\]\"']{10001,}")
"""A word that no recipe has: the scanner looks at each of its letters several times."""
_STANDARD = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
"""The numbers of YAML 1.2's core schema (10.3.2). What else ruamel calls one, such as 1_000, is a text."""


class Document(Struct, frozen=True):
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
    if file.lower().endswith(".json"):
        text = _check_json(text, file)
    return _Composer(file).compose(text)


def _check_json(text: str, file: str) -> str:
    """Hold a `.json` file to JSON's own rules, then make it YAML: a tab may not indent there."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise RecipeSyntaxError(error.msg.lower(), where=Origin(file, error.lineno)) from error
    except ValueError as error:
        raise RecipeSyntaxError(str(error), where=file) from error
    except RecursionError as error:
        raise RecipeSyntaxError(f"nests more than {_DEEPEST} deep", where=file) from error
    return text.replace("\t", " ")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


class _Composer:
    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Place, int] = {}

    def compose(self, text: str) -> Document:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError
        from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
        from ruamel.yaml.reader import ReaderError

        if (word := _LONG_WORD.search(text)) is not None:
            raise self.error(f"a word of {len(word[0])} characters", text.count("\n", 0, word.start()))
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
            indent = text.splitlines()[line : line + 1] or [""]
            is_tab = indent[0][: len(indent[0]) - len(indent[0].lstrip())].count("\t") > 0
            hint = "indent with spaces" if is_tab else "quote texts that hold { } [ ] * & : or #"
            raise self.error(str(error.problem or error.context), line, hint) from error
        except ReaderError as error:
            raise self.error(
                f"the character U+{error.character:04X} is not allowed", text.count("\n", 0, error.position)
            ) from error
        except (YAMLError, ValueError) as error:
            raise RecipeSyntaxError(str(error).splitlines()[0], where=self.file) from error
        if node is None:
            return Document(self.file, None, {(): 1})
        return Document(self.file, self.value(node, ()), self.lines)

    def value(self, node: Any, place: Place) -> Any:  # ruamel's nodes carry no types
        """Make the plain value of a node, and note its line."""
        self.lines[place] = node.start_mark.line + 1
        if node.id != "scalar" and node.tag not in (f"{_STANDARD}map", f"{_STANDARD}seq"):
            raise self.error(f"the tag '{node.tag}' is not allowed", node.start_mark.line)
        if node.id == "sequence":
            return [self.value(child, (*place, number)) for number, child in enumerate(node.value)]
        if node.id == "mapping":
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line
                if key_node.id != "scalar":
                    raise self.error("a key must be a text", line, "quote keys that hold { } or [ ]")
                self.scalar(key_node)
                key = self.text(key_node)
                if key in result:
                    first = self.lines[(*place, key)]
                    op = result["op"] if isinstance(result.get("op"), str) else None
                    raise self.error(f"the key '{key}' stands twice, first on line {first}", line, "keep one", op)
                result[key] = self.value(value_node, (*place, key))
                self.lines[(*place, key)] = line + 1
            return result
        return self.scalar(node)

    def scalar(self, node: Any) -> str | int | float | bool | None:
        """Resolve a scalar by YAML 1.2's core schema: `no` is a text, `012` is 12."""
        text = self.text(node)
        match node.tag.removeprefix(_STANDARD):
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if _INTEGER.fullmatch(text):
                return self.integer(text, node)
            case "float" if _REAL.fullmatch(text):
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "bool" | "int" | "float" | "str" | "timestamp" | "value" | "merge":
                return text
        raise self.error(f"the tag '{node.tag}' is not allowed", node.start_mark.line)

    def integer(self, text: str, node: Any) -> int:
        """Read an integer in base 10, 8 or 16."""
        try:
            return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
        except ValueError as error:
            raise self.error(f"a number of {len(text)} digits", node.start_mark.line) from error

    def text(self, node: Any) -> str:
        """Give the text of a scalar, with the surrogate pairs of JSON's escapes joined."""
        try:
            return str(node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le"))
        except UnicodeDecodeError as error:
            raise self.error("half a surrogate pair is no text", node.start_mark.line) from error

    def error(self, message: str, line: int, hint: str | None = None, op: str | None = None) -> RecipeSyntaxError:
        """Make an error at a line that counts from 0."""
        return RecipeSyntaxError(message, where=Origin(self.file, line + 1, op), hint=hint)
