"""Read YAML 1.2: plain values are made as the parser comes upon them, and what is refused is never built.

Aliases and duplicate keys are errors: an alias can blow a few hundred bytes up to gigabytes, and of two equal
keys a loader would silently keep one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError

from ckptfix.document.parse import DEEPEST, Document, Place
from ckptfix.errors import Origin, RecipeSyntaxError

_LONG_WORD = re.compile(r"[^\s,:{}\[\]\"']{10001,}")
"""A word that no recipe has: the scanner looks at each of its letters several times."""
_STANDARD = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
"""The numbers of YAML 1.2's core schema (10.3.2). What else ruamel calls one, such as 1_000, is a text."""

Events = Iterator[Any]
"""ruamel's events carry no types."""


class YamlReader:
    """Reads one text of a file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: dict[Place, int] = {}
        self._yaml = YAML(typ="safe", pure=True)

    def read(self, text: str) -> Document:
        """Give the value of the text, None where it has none. Raises RecipeSyntaxError."""
        if (word := _LONG_WORD.search(text)) is not None:
            raise self._error(f"a word of {len(word[0])} characters", text.count("\n", 0, word.start()))
        try:
            value = self._document(self._yaml.parse(text))
        except MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else 0
            indent = text.splitlines()[line : line + 1] or [""]
            is_tab = indent[0][: len(indent[0]) - len(indent[0].lstrip())].count("\t") > 0
            hint = "indent with spaces" if is_tab else "quote texts that hold { } [ ] * & : or #"
            raise self._error(str(error.problem or error.context), line, hint) from error
        except ReaderError as error:
            raise self._error(
                f"the character U+{error.character:04X} is not allowed", text.count("\n", 0, error.position)
            ) from error
        except (YAMLError, ValueError) as error:
            raise RecipeSyntaxError(str(error).splitlines()[0], where=self._file) from error
        return Document(self._file, value, self._lines or {(): 1})

    def _document(self, events: Events) -> Any:
        value = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if self._lines:
                    raise self._error("another document begins", event.start_mark.line, "keep one of them")
                value = self._value(next(events), events, ())
        return value

    def _value(self, event: Any, events: Events, place: Place) -> Any:
        """Make the value that an event begins, and note its line."""
        line = event.start_mark.line
        self._lines[place] = line + 1
        self._refuse_alias(event)
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if len(place) >= DEEPEST:
            raise self._error(f"nests more than {DEEPEST} deep", line)
        if event.tag not in (None, "!", f"{_STANDARD}map", f"{_STANDARD}seq"):
            raise self._tag_error(event.tag, line)
        if isinstance(event, SequenceStartEvent):
            return [self._value(part, events, (*place, number)) for number, part in enumerate(_inside(events))]
        assert isinstance(event, MappingStartEvent)
        return self._mapping(events, place)

    def _mapping(self, events: Events, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for event in _inside(events):
            line = event.start_mark.line
            self._refuse_alias(event)
            if not isinstance(event, ScalarEvent):
                raise self._error("a key must be a text", line, "quote keys that hold { } or [ ]")
            self._scalar(event)
            key = self._text(event)
            if key in result:
                first = self._lines[(*place, key)]
                op = result["op"] if isinstance(result.get("op"), str) else None
                raise self._error(f"the key '{key}' stands twice, first on line {first}", line, "keep one", op)
            result[key] = self._value(next(events), events, (*place, key))
            self._lines[(*place, key)] = line + 1
        return result

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        """Resolve a scalar by YAML 1.2's core schema: `no` is a text, `012` is 12."""
        text = self._text(event)
        tag = event.tag
        if tag in (None, "!"):
            tag = str(self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit))
        match tag.removeprefix(_STANDARD):
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if _INTEGER.fullmatch(text):
                return self._integer(text, event)
            case "float" if _REAL.fullmatch(text):
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "bool" | "int" | "float" | "str" | "timestamp" | "value" | "merge":
                return text
        raise self._tag_error(tag, event.start_mark.line)

    def _integer(self, text: str, event: Any) -> int:
        """Read an integer in base 10, 8 or 16."""
        try:
            return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
        except ValueError as error:
            raise self._error(f"a number of {len(text)} digits", event.start_mark.line) from error

    def _text(self, event: Any) -> str:
        """Give the text of a scalar, with the surrogate pairs of JSON's escapes joined."""
        try:
            return str(event.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le"))
        except UnicodeDecodeError as error:
            raise self._error("half a surrogate pair is no text", event.start_mark.line) from error

    def _refuse_alias(self, event: Any) -> None:
        if isinstance(event, AliasEvent):
            hint = "write the value out; quote a text that starts with * or &"
            raise self._error("aliases are not allowed", event.start_mark.line, hint)

    def _tag_error(self, tag: str, line: int) -> RecipeSyntaxError:
        hint = "quote a text that starts with !" if tag.startswith("!") else None
        return self._error(f"the tag '{tag}' is not allowed", line, hint)

    def _error(self, message: str, line: int, hint: str | None = None, op: str | None = None) -> RecipeSyntaxError:
        """Make an error at a line that counts from 0."""
        return RecipeSyntaxError(message, where=Origin(self._file, line + 1, op), hint=hint)


def _inside(events: Events) -> Events:
    """Give the events that begin the parts of a collection, each of which takes its own further ones."""
    for event in events:
        if isinstance(event, CollectionEndEvent):
            return
        yield event
