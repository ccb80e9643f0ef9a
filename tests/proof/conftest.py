"""A small convolutional net, its checkpoint, and an adaptation of it that is sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ckptfix import adapt

NET = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=2, prefix=""):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.left = nn.Linear(4, 4)
        self.right = nn.Linear(4, 4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.head(self.right(self.left(x).relu()).relu())

def build(classes=2, dtype="float32"):
    return Net(classes).to(getattr(torch, dtype))
"""

HEAD = 'ckptfix: 1\nrules:\n  - {op: drop, keys: "head.*"}\n  - {op: fill, keys: "head.*", value: target}\n'


@dataclass(frozen=True)
class Case:
    """A checkpoint of two classes, its adaptation to three, and what it was adapted with."""

    source: Path
    out: Path
    target: str = "py:proof_net.py:build?classes=3"
    origin: str = "py:proof_net.py:build"
    recipe: str = HEAD
    shape: tuple[int, ...] = (2, 1, 6, 6)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The source's tensors."""
        return torch.load(self.source, weights_only=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("proof_net.py").write_text(NET)
    torch.manual_seed(7)
    namespace: dict = {}
    exec(NET, namespace)  # the same text that ckptfix imports
    net = namespace["build"]()
    for _ in range(3):
        net(torch.randn(8, 1, 6, 6))
    torch.save(net.state_dict(), "source.pth")
    return tmp_path


@pytest.fixture(params=["out.safetensors", "out.pth"])
def case(request: pytest.FixtureRequest, folder: Path) -> Case:
    case = Case(folder / "source.pth", folder / request.param)
    adapt(case.source, case.target, case.out, case.recipe)
    return case
