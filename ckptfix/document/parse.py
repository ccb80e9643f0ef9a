"""Documents that users write: YAML 1.2 or JSON in, plain values and the line of every node out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ckptfix.errors import Origin, ReadFailed, RecipeSyntaxError, SourceNotFound

Place = tuple[str | int, ...]
"""The way to a node: mapping keys and list positions, from the top."""

DEEPEST = 50
"""Containers that may lie in one another."""
_LARGEST = 2 << 20


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
    from ckptfix.document.yaml_reader import YamlReader

    return YamlReader(file).read(text)


def _check_json(text: str, file: str) -> str:
    """Hold a `.json` file to JSON's own rules, then make it YAML: a tab may not indent there."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise RecipeSyntaxError(error.msg.lower(), where=Origin(file, error.lineno)) from error
    except ValueError as error:
        raise RecipeSyntaxError(str(error), where=file) from error
    except RecursionError as error:
        raise RecipeSyntaxError(f"nests more than {DEEPEST} deep", where=file) from error
    return text.replace("\t", " ")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
