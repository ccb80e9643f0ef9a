"""Explain an op or an error code, from the docstring, fields and examples that the code itself has."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from ckptfix import errors
from ckptfix.edits import Example
from ckptfix.errors import CkptfixError, InvalidCall
from ckptfix.report.text import table
from ckptfix.rules import rule_types
from ckptfix.rules.base import Rule


def explain(subject: str) -> list[str]:
    """Give the lines that explain an op (`rename`) or a code (`CKF204`). Raises InvalidCall for neither."""
    rules, codes = rule_types(), error_types()
    if subject in rules:
        return list(_explain_rule(rules[subject]))
    if subject.upper() in codes:
        return list(_explain_error(codes[subject.upper()]))
    close = get_close_matches(subject, [*rules, *codes], 3, 0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"ops: {', '.join(rules)}; codes: CKF101 and so on"
    raise InvalidCall(f"'{subject}' is neither an op nor an error code", hint=hint)


def error_types() -> dict[str, type[CkptfixError]]:
    """Give every error by its code."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, CkptfixError)]
    return dict(sorted((error.code, error) for error in classes))


def _explain_rule(rule: type[Rule]) -> Iterator[str]:
    schema = rule.model_json_schema()
    fields = {name: field for name, field in schema["properties"].items() if name != "op"}
    yield f"op: {schema['properties']['op']['const']}"
    yield ""
    yield from (inspect.getdoc(rule) or "").splitlines()
    yield ""
    yield "fields:"
    required = schema["required"]
    yield from table(
        (
            f"  {name}",
            "required" if name in required else f"default {json.dumps(field.get('default', {}))}",
            " ".join(filter(None, [field.get("description"), _choices(field)])),
        )
        for name, field in sorted(fields.items(), key=lambda item: item[0] not in required)
    )
    for example in rule.examples:
        yield ""
        yield from _show_example(example)


def _choices(field: dict[str, Any]) -> str | None:
    """List the texts that a field may be."""
    texts = [text for part in (field, *field.get("anyOf", ())) for text in part.get("enum", ())]
    return f"One of {', '.join(texts)}." if texts else None


def _show_example(example: Example) -> Iterator[str]:
    yield f"- {example.rule}"
    yield f"    checkpoint: {_shapes(example.have)}"
    if example.want:
        yield f"    target:     {_shapes(example.want)}"
    if example.fails:
        yield f"    error:      {example.fails}"
    for key, how in example.gives.items():
        yield f"    {key} = {how}"


def _shapes(shapes: object) -> str:
    assert isinstance(shapes, dict)
    return ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "nothing"


def _explain_error(error: type[CkptfixError]) -> Iterator[str]:
    yield f"{error.code}: {error.__name__} (exit {error.exit_code})"
    yield ""
    yield from (inspect.getdoc(error) or "").splitlines()
