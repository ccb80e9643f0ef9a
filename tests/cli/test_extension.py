"""A new op, target scheme or format is one new file: nothing else of the package is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .running import ROOT, save_net

NEGATE = '''\
"""Turn the signs of tensors around."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ckptfix.expr import Compute
from ckptfix.rules.base import Edit, Example, Made, Patterns, Rule, Scope, select


class Negate(Rule):
    """Turn the signs of tensors around."""

    op: Literal["negate"]
    keys: Patterns = Field(description="Patterns of the keys.")

    examples = (
        Example(rule="{op: negate, keys: w}", have={"w": [2]}, want={"w": [2]}, gives={"w": "negate(w)"}),
    )

    def edit(self, scope: Scope) -> Edit:
        """Wrap the selected rows."""
        found = select(self.keys, scope.table)
        made = tuple(
            Made(key, Compute((scope.table[key],), scope.table[key].spec, lambda tensor: -tensor, "negate"), (key,))
            for key in found.keys
        )
        return Edit(found.keys, made, len(made), found.unmatched)
'''

LINEAR = '''\
"""`linear:5`: one linear layer of three inputs."""

from __future__ import annotations

from ckptfix.targets.base import Target, TargetURI, module_target


def resolve(uri: TargetURI) -> Target:
    """Build it."""
    from torch import nn

    return module_target(uri.text, lambda: nn.Linear(3, int(uri.body), **uri.query), lambda module: None)
'''

FLAT = '''\
"""`.flat`: a text line `KEY COUNT`, then float32 numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ckptfix.formats.base import Contents, File, FileLayout, Format, Pairs, Places, Storage, TensorRef
from ckptfix.tensors import DType, TensorSpec


class Layout(FileLayout):
    """The line, then the numbers."""

    checksums = False

    def __init__(self, key: str, spec: TensorSpec) -> None:
        self._line = f"FLAT {key} {spec.numel}\\n".encode()
        self.offsets = {key: len(self._line)}
        self.nbytes = len(self._line) + spec.nbytes

    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give the line."""
        yield 0, self._line


class Flat(Format):
    """One vector in a file."""

    name = "flat"
    suffixes = (".flat",)

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the first word."""
        return head.startswith(b"FLAT ")

    def open(self, path: Path) -> Contents:
        """Read the line."""
        with File(path) as file:
            line = file.read(0, min(200, file.size)).partition(b"\\n")[0]
        _, key, count = line.decode().split()
        storage = Storage(path, len(line) + 1, 4 * int(count), 4 * int(count))
        ref = TensorRef(TensorSpec((int(count),), DType.F32), storage, 0, (1,))
        return Contents(path, self.name, Pairs([(key, ref)]))

    def lay_out(
        self,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
        places: Places = MappingProxyType({}),
    ) -> FileLayout:
        """Place the one vector."""
        ((key, spec),) = tensors.items()
        return Layout(key, spec)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to which a test adds a file."""
    shutil.copytree(ROOT / "ckptfix", tmp_path / "ckptfix", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "ckptfix"


def run(package: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ckptfix", *map(str, args)],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def must(package: Path, *args: object) -> str:
    found = run(package, *args)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_new_op(package: Path) -> None:
    folder = package.parent
    tensors = save_net(folder / "net.pth")
    (folder / "recipe.yaml").write_text('ckptfix: 1\nrules:\n  - {op: negate, keys: "0.*"}\n')
    task = ["net.pth", "net.pth", "-r", "recipe.yaml"]
    before = run(package, "check", *task)
    assert before.returncode == 2 and "unknown op 'negate'" in before.stderr

    (package / "rules" / "negate.py").write_text(NEGATE)
    definitions = json.loads(must(package, "schema", "recipe"))["$defs"]
    assert definitions["Negate"]["properties"]["op"]["const"] == "negate"
    outputs = json.loads(must(package, "plan", *task, "--json"))["outputs"]
    assert outputs["0.bias"] == {"from": ["0.bias"], "rule": 1, "line": 3, "how": "negate(0.bias)"}
    must(package, "adapt", *task, "-o", "out.pth")
    written = torch.load(folder / "out.pth", weights_only=True)
    for key, tensor in tensors.items():
        assert torch.equal(written[key], -tensor if key.startswith("0.") else tensor), key
    checked = ["--source", "net.pth", "-r", "recipe.yaml"]
    assert json.loads(must(package, "verify", "out.pth", "net.pth", *checked, "--json"))["values"] is True
    assert run(package, "verify", "net.pth", "net.pth", *checked).returncode == 1


def test_a_new_target_scheme(package: Path) -> None:
    torch.save({"weight": torch.ones(5, 3)}, package.parent / "linear.pth")
    before = run(package, "check", "linear.pth", "linear:5?bias=false")
    assert before.returncode == 2 and "unknown scheme 'linear'" in before.stderr
    (package / "targets" / "linear.py").write_text(LINEAR)
    must(package, "check", "linear.pth", "linear:5?bias=false")
    assert "weight [5, 3]" in must(package, "inspect", "linear:5")
    must(package, "verify", "linear.pth", "linear:5?bias=false", "--input", "1,3")
    assert run(package, "check", "linear.pth", "linear:6").returncode == 1
    suggestion = run(package, "check", "linear.pth", "lineer:6").stderr
    assert "did you mean 'linear:'?" in suggestion


def test_a_new_format(package: Path) -> None:
    folder = package.parent
    numbers = torch.tensor([1.0, -2.0, 3.5])
    (folder / "v.flat").write_bytes(b"FLAT bias 3\n" + numbers.numpy().tobytes())
    assert run(package, "inspect", "v.flat").returncode == 3
    (package / "formats" / "flat.py").write_text(FLAT)
    assert "v.flat: flat" in must(package, "inspect", "v.flat")
    must(package, "adapt", "v.flat", "v.flat", "-o", "v.pth")
    assert torch.equal(torch.load(folder / "v.pth", weights_only=True)["bias"], numbers)
    must(package, "adapt", "v.pth", "v.flat", "-o", "again.flat")
    assert (folder / "again.flat").read_bytes() == (folder / "v.flat").read_bytes()
    must(package, "verify", "again.flat", "v.flat", "--source", "v.pth")
