"""What a command needs is all that it imports: measured in a process of its own, by the interpreter's own list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptfix.formats import open_checkpoint
from ckptfix.tensors import Manifest

from .running import FIXTURES, ROOT

FILES = ["tiny.safetensors", "zip.pth", "legacy.pth"]
PREFIX = """\
ckptfix: 1
rules:
  - {op: drop, keys: "4.*"}
  - {op: rename, map: {"{i:int}.{p}": "layers.{i}.{p}"}}
"""
RUN = """\
import atexit, sys
before = set(sys.modules)
atexit.register(lambda: print(*sorted(set(sys.modules) - before), sep="\\n", file=sys.stderr))
from ckptfix.__main__ import main
main()
"""
TENSORS = {"torch", "numpy", "safetensors", "huggingface_hub"}
DOCUMENTS = {"pydantic", "ruamel", "re2", "jsonschema"}
PROCESSES = {"asyncio", "concurrent", "multiprocessing", "subprocess", "tempfile", "socket", "ssl", "logging"}
UNREAD = {"pickle", "zipfile", "tarfile", "xml", "email", "importlib.metadata", "rich", "yaml"}
NEVER = TENSORS | DOCUMENTS | PROCESSES | UNREAD
"""What no command needs that reads headers alone, or moves bytes without a recipe."""
MACHINE = {f"formats.pickle.{name}" for name in ("machine", "opcodes", "globals", "arrays", "storages", "stream")}
READERS = {
    "tiny.safetensors": set(),
    "zip.pth": {"formats.zip.saved", "formats.zip.directory", *MACHINE},
    "legacy.pth": {"formats.legacy.pickles", *MACHINE},
}
"""The modules that read each file."""
OTHERS = {"formats.npy", "formats.npy.read", "formats.legacy.tar", "formats.distributed.metadata"}.union(
    *READERS.values()
)


def imported(*args: object, cwd: Path) -> set[str]:
    """The modules that a successful command imports, and the packages that they are in."""
    found = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    names = set(found.stderr.split())
    assert "click" in names
    return names | {name.partition(".")[0] for name in names}


def own(names: set[str]) -> set[str]:
    return {name.removeprefix("ckptfix.") for name in names if name.startswith("ckptfix.")}


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


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["inspect", "--help"]])
def test_help_imports_no_checkpoint(args: list[str], tmp_path: Path) -> None:
    names = imported(*args, cwd=tmp_path)
    assert names & NEVER == set()
    assert own(names) <= {
        "__main__",
        "_version",
        "cli",
        "cli.main",
        "cli.console",
        "cli.options",
        "cli.commands",
        "cli.commands.inspect",
        "counts",
        "errors",
        "tensors",
    }


@pytest.mark.parametrize("name", FILES)
def test_inspect(name: str, tmp_path: Path) -> None:
    names = imported("inspect", FIXTURES / name, cwd=tmp_path)
    assert names & NEVER == set()
    assert {name for name in own(names) if not name.startswith(("cli", "formats"))} <= {
        "__main__",
        "_version",
        "counts",
        "digest",
        "errors",
        "report",
        "report.text",
        "targets",
        "tensors",
    }
    others = {"zip.layout", "zip.archive", "pickle.emit", "audit", "distributed.layout", "distributed.trailer"}
    assert own(names) & {f"formats.{name}" for name in others} == set()
    assert own(names) & OTHERS == READERS[name]
    assert names & {"difflib", "blake3"} == set()


@pytest.mark.parametrize("name", FILES)
def test_without_a_recipe(name: str, tmp_path: Path) -> None:
    file = FIXTURES / name
    for command in ("check", "plan"):
        names = imported(command, file, file, cwd=tmp_path)
        assert names & NEVER == set()
        assert {one for one in own(names) if one.startswith(("rules", "document", "inference"))} == set()
        assert own(names) & OTHERS == READERS[name]
        assert command == "plan" or not any(one.startswith("execute") for one in own(names))
    for suffix in ("safetensors", "pth"):
        names = imported("adapt", file, file, "-o", f"out.{suffix}", cwd=tmp_path)
        assert names & NEVER == set()
        assert {one for one in own(names) if one.startswith(("rules", "document", "inference"))} == set()


@pytest.mark.parametrize("name", FILES)
def test_with_a_recipe(name: str, tmp_path: Path, recipe: Path, target: Path) -> None:
    file, never = FIXTURES / name, TENSORS | {"jsonschema", "asyncio", "multiprocessing", "subprocess", "ssl"}
    out = {suffix: ["-o", tmp_path / f"out.{suffix}"] for suffix in ("safetensors", "pth")}
    for command, rest in [("check", []), ("plan", ["--json"]), ("adapt", out["safetensors"]), ("adapt", out["pth"])]:
        names = imported(command, file, target, "-r", recipe, *rest, cwd=tmp_path)
        assert names & never == set()
        assert {one for one in own(names) if one.startswith("rules.")} == {"rules.base", "rules.drop", "rules.rename"}
    for _, path in out.values():
        assert imported("check", path, target, cwd=tmp_path) & NEVER == set()


def test_import_ckptfix_costs_nothing(tmp_path: Path) -> None:
    code = "import sys, ckptfix; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    names = set(found.stdout.split())
    assert own(names) == {"_version"}
    assert names & {"click", "dataclasses", "enum", "pathlib", "re", "typing"} == set()
