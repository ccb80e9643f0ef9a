"""A tiny net, its checkpoint of another class count, and the step that brings them together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

MODEL = """
import torch
from torch import nn

def build(classes=3):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, classes),
    )
"""

STEP = """
ckptfix: 1
source: old.pth
target: py:model.py:build?classes=3
recipe: recipe.yaml
output: out/model.safetensors
report: out/report
checks:
  verify: {input: [2, 1, 8, 8]}
"""

RECIPE = """
ckptfix: 1
rules:
  - {op: drop, keys: "5.*"}
  - {op: fill, keys: "5.*", value: target}
"""


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """Write a step with all that it needs; give its path."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "step.yaml").write_text(STEP)
    names: dict[str, object] = {}
    exec(MODEL, names)
    torch.manual_seed(7)
    torch.save(names["build"](5).state_dict(), tmp_path / "old.pth")  # type: ignore[operator]
    return tmp_path / "step.yaml"
