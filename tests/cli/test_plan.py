"""`check`, `plan` and `schema`: the documents and what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ckptfix.planning.documents import PlanAndWork, ReportDocument

from .running import call, save_net

RENAMED = """\
ckptfix: 1
vars: {head: 2}
rules:
  - op: rename
    map: {"{i}.{p}": "layers.{i}.{p}"}
  - {op: drop, keys: "layers.2.*"}
  - {op: fill, keys: "layers.{i}.*", value: zeros}
"""


@pytest.fixture
def renamed(net: Path) -> Path:
    """A recipe of three rules, and the target that it fits."""
    (net / "recipe.yaml").write_text(RENAMED)
    tensors = torch.load(net / "net.pth")
    torch.save({f"layers.{key}": tensor for key, tensor in tensors.items()}, net / "target.pth")
    return net


def document(capsys: pytest.CaptureFixture[str], status: int, *args: object) -> dict:
    assert call(*args, "--json") == status
    return json.loads(capsys.readouterr().out)


def schema(capsys: pytest.CaptureFixture[str], name: str) -> dict:
    assert call("schema", name) == 0
    return json.loads(capsys.readouterr().out)


def test_plan_says_what_each_tensor_is_made_of(renamed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, 0, "plan", "net.pth", "target.pth", "-r", "recipe.yaml")
    assert made["outputs"] == {
        "layers.0.weight": {"from": ["0.weight"], "rule": 1, "line": 4, "how": "0.weight"},
        "layers.0.bias": {"from": ["0.bias"], "rule": 1, "line": 4, "how": "0.bias"},
        "layers.2.weight": {"from": [], "rule": 3, "line": 7, "how": "fill(0)"},
        "layers.2.bias": {"from": [], "rule": 3, "line": 7, "how": "fill(0)"},
    }
    assert made["loaded"] == ["layers.0.weight", "layers.0.bias"]
    assert made["filled"] == ["layers.2.weight", "layers.2.bias"]
    assert made["dropped"] == ["2.weight", "2.bias"]


def test_a_tensor_that_no_rule_touched_has_no_rule(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, 0, "plan", "net.pth", "net.pth")
    assert made["outputs"]["0.bias"] == {"from": ["0.bias"], "rule": None, "line": None, "how": "0.bias"}


def test_plan_as_text_and_into_a_file(renamed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "net.pth", "target.pth", "-r", "recipe.yaml", "-o", "plan.json") == 0
    out = capsys.readouterr().out
    assert "layers.2.bias    F32 [2]     <- fill(0)   recipe.yaml:7: fill" in out
    assert "recipe.yaml:4: rename: 4 keys" in out
    written = json.loads((renamed / "plan.json").read_text())
    assert written == document(capsys, 0, "plan", "net.pth", "target.pth", "-r", "recipe.yaml")


def test_trace_follows_a_key_back(renamed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "net.pth", "target.pth", "-r", "recipe.yaml", "--trace", "layers.0.bias") == 0
    assert capsys.readouterr().out.splitlines() == [
        "layers.0.bias = 0.bias",
        "recipe.yaml:4: rename: layers.0.bias from 0.bias: 0.bias",
        "source: 0.bias F32 [4]",
    ]
    assert call("plan", "net.pth", "target.pth", "-r", "recipe.yaml", "--trace", "layers.0.bais") == 2
    assert "error: the plan makes no 'layers.0.bais' (nearest: layers.0.bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "status"), [("net.pth", 0), ("py:net:build?classes=3", 1), ("py:net:build?width=5", 1)]
)
@pytest.mark.parametrize(
    ("command", "kind", "name"), [("check", ReportDocument, "report"), ("plan", PlanAndWork, "plan")]
)
def test_documents_match_their_schemas(
    command: str, kind: type, name: str, target: str, status: int, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, status, command, "net.pth", target)
    TypeAdapter(kind).validate_python(found, strict=True, extra="forbid")
    printed = schema(capsys, name)
    assert set(printed["required"]) == set(printed["properties"]) == set(found)
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python({**found, "coverage": "high"})


def test_a_wrong_recipe_is_reported_in_the_document(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (net / "recipe.yaml").write_text(
        "ckptfix: 1\nrules:\n  - {op: drop, keys: nope}\n  - {op: rename, map: {0.bias: 2.bias}}\n"
    )
    for command in ("check", "plan", "adapt"):
        output = ["-o", "out.pth"] if command == "adapt" else []
        found = document(capsys, 2, command, "net.pth", "net.pth", "-r", "recipe.yaml", *output)
        assert [(fault["code"], fault["where"]) for fault in found["errors"]] == [
            ("CKF204", "recipe.yaml:3: drop"),
            ("CKF205", "recipe.yaml:4: rename"),
        ]
        assert found["collisions"] == [{"key": "2.bias", "rules": [None, 2]}]
        assert found["compatible"] is False


def test_the_schema_of_recipes_lists_every_op(capsys: pytest.CaptureFixture[str]) -> None:
    printed = schema(capsys, "recipe")
    assert printed["additionalProperties"] is False
    ops = {
        definition["properties"]["op"]["const"]
        for definition in printed["$defs"].values()
        if "op" in definition["properties"]
    }
    assert {"rename", "drop", "copy", "fill", "cast", "resize"} <= ops


def test_the_schema_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"source", "target"} <= set(schema(capsys, "step")["properties"])


def test_variables(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (net / "recipe.yaml").write_text('ckptfix: 1\nrules:\n  - {op: rename, map: {"2.{p}": "{head}.{p}"}}\n')
    tensors = torch.load(net / "net.pth")
    torch.save({key.replace("2.", "7."): tensor for key, tensor in tensors.items()}, net / "target.pth")
    assert call("check", "net.pth", "target.pth", "-r", "recipe.yaml", "--var", "head=7") == 0
    assert call("check", "net.pth", "target.pth", "-r", "recipe.yaml", "--var", "head=8") == 1
    assert call("check", "net.pth", "target.pth", "-r", "recipe.yaml") == 2
    assert "head" in capsys.readouterr().err
    assert call("check", "net.pth", "target.pth", "-r", "recipe.yaml", "--var", "head") == 2
    assert "'head' is not of the form NAME=VALUE" in capsys.readouterr().err


def test_recipe_selects_and_strips(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = torch.load(net / "net.pth")
    wrapped = {f"module.{key}": tensor for key, tensor in tensors.items()}
    torch.save({"model": wrapped, "ema": wrapped}, net / "nested.pth")
    (net / "recipe.yaml").write_text('ckptfix: 1\nsource: {select: ema, strip: ["module."]}\n')
    assert call("check", "nested.pth", "net.pth", "-r", "recipe.yaml") == 0
    assert call("check", "nested.pth#ema", "net.pth") == 1
    assert 'source: {strip: ["module."]}' in capsys.readouterr().out


def test_the_text_of_a_check(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_net(net / "other.pth", classes=9)
    assert call("check", "other.pth", "py:net:build") == 1
    assert capsys.readouterr().out.splitlines()[:3] == [
        "mismatched  2.weight  have F32 [9, 4]  want F32 [2, 4]",
        "mismatched  2.bias    have F32 [9]     want F32 [2]",
        "2 of 4 tensors loaded, 2 mismatched; coverage 50.0% of the keys, 61.5% of the elements",
    ]


def test_a_dtype_that_loading_would_cast_is_reported(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = torch.load(net / "net.pth")
    torch.save(tensors | {"0.bias": tensors["0.bias"].half()}, net / "half.pth")
    found = document(capsys, 0, "check", "half.pth", "net.pth")
    assert found["dtypes"] == [
        {"key": "0.bias", "have": {"shape": [4], "dtype": "F16"}, "want": {"shape": [4], "dtype": "F32"}}
    ]
    torch.save(tensors | {"0.bias": tensors["0.bias"].int()}, net / "int.pth")
    assert [row["key"] for row in document(capsys, 1, "check", "int.pth", "net.pth")["mismatched"]] == ["0.bias"]
