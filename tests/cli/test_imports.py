"""What needs no tensors imports no torch: measured in a process of its own, by the interpreter's own list."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckptfix.formats import open_checkpoint
from ckptfix.tensors import Manifest

from .running import FIXTURES, spawn

FILES = ["tiny.safetensors", "zip.pth", "legacy.pth"]
PREFIX = """\
ckptfix: 1
rules:
  - {op: drop, keys: "4.*"}
  - {op: rename, map: {"{i:int}.{p}": "layers.{i}.{p}"}}
"""


def imported(*args: object, cwd: Path) -> set[str]:
    """The top-level packages that a successful command imports."""
    found = spawn(*args, cwd=cwd, options=("-X", "importtime"))
    assert found.returncode == 0, found.stderr[-2000:]
    return {name.partition(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", found.stderr, re.MULTILINE)}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(PREFIX)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The lockfile of the renamed net."""
    have = open_checkpoint(FIXTURES / "zip.pth").manifest
    want = {f"layers.{key}": have[key] for key in have if not key.startswith("4.")}
    path = tmp_path / "target.json"
    path.write_text(json.dumps(Manifest(want).to_json()))
    return path


@pytest.mark.parametrize("name", FILES)
def test_inspect(name: str, tmp_path: Path) -> None:
    names = imported("inspect", FIXTURES / name, cwd=tmp_path)
    assert "ckptfix" in names
    assert names & {"torch", "numpy", "pickle", "pydantic"} == set()


@pytest.mark.parametrize("name", FILES)
def test_check_and_plan_and_adapt(name: str, tmp_path: Path, recipe: Path, target: Path) -> None:
    heavy = {"torch", "numpy", "safetensors", "huggingface_hub"}
    assert imported("check", FIXTURES / name, target, "-r", recipe, cwd=tmp_path) & heavy == set()
    assert imported("plan", FIXTURES / name, target, "-r", recipe, "--json", cwd=tmp_path) & heavy == set()
    for suffix in ("safetensors", "pth"):
        out = tmp_path / f"out.{suffix}"
        assert imported("adapt", FIXTURES / name, target, "-r", recipe, "-o", out, cwd=tmp_path) & heavy == set()
        assert imported("check", out, target, cwd=tmp_path) & heavy == set()


def test_help_imports_no_command(tmp_path: Path) -> None:
    for args in (["--help"], ["adapt", "--help"], ["--version"]):
        assert imported(*args, cwd=tmp_path) & {"torch", "numpy", "pickle", "pydantic", "ruamel"} == set()


def test_import_ckptfix_costs_nothing(tmp_path: Path) -> None:
    code = "import sys, ckptfix; print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'click'}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"
