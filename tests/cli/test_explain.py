"""`ckptfix explain`: every op and every code, from what the code says of itself."""

from __future__ import annotations

import json

import pytest

from ckptfix.report.explain import error_types
from ckptfix.rules import rule_types

from .running import call


@pytest.mark.parametrize("op", rule_types())
def test_an_op_is_explained_with_its_fields_and_examples(op: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("explain", op) == 0
    shown = capsys.readouterr().out
    rule = rule_types()[op]
    assert shown.startswith(f"op: {op}\n\n{(rule.__doc__ or '').splitlines()[0]}")
    for name, field in rule.model_fields.items():
        assert name == "op" or f"\n  {field.alias or name} " in shown
    assert all(f"\n- {example.rule}\n" in shown for example in rule.examples)


@pytest.mark.parametrize("code", error_types())
def test_a_code_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("explain", code.lower()) == 0
    error = error_types()[code]
    assert capsys.readouterr().out.startswith(f"{code}: {error.__name__} (exit {error.exit_code})\n\n")
    assert error.__doc__


def test_every_error_has_a_code_of_its_own() -> None:
    from ckptfix import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "exit_code")]
    assert len({error.code for error in classes}) == len(classes)


def test_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("explain", "renam", "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["hint"] == "did you mean rename?"
