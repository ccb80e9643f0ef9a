"""Run the command line, in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from ckptfix.cli.main import run

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
IMAGENET = "torchvision:mobilenet_v2"
FIVE = "torchvision:mobilenet_v2?num_classes=5"
HEAD = ["classifier.1.weight", "classifier.1.bias"]
NEW_HEAD = """\
ckptfix: 1
rules:
  - {op: drop, keys: "classifier.1.*"}
  - {op: fill, keys: "classifier.1.*", value: target}
"""

BUILD = """\
import torch
from torch import nn

def build(classes=2, width=4):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, classes))
"""
"""A module for `py:`. Its keys are 0.weight, 0.bias, 2.weight, 2.bias."""


def call(*args: object) -> int:
    """Run in this process; `capsys` has the output."""
    return run([str(arg) for arg in args])


def spawn(
    *args: object, cwd: Path | None = None, options: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own; `options` are the interpreter's."""
    return subprocess.run(
        [sys.executable, *options, "-m", "ckptfix", *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def start_replacing(source: Path, out: Path, old: bytes, *options: str) -> subprocess.Popen[str]:
    """Start to replace an old file by an adapted one; give the process once it has begun to write."""
    out.write_bytes(old)
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptfix", "adapt", source, source, "-o", out, "--force", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job of a shell may ignore it
    )
    while len(list(out.parent.iterdir())) == 1 and process.poll() is None:
        time.sleep(0.002)
    return process


def save_net(path: Path, classes: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write the state dict of BUILD's net."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (classes, 4), "2.bias": (classes,)}
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    torch.save(tensors, path)
    return tensors


def listing(folder: Path) -> dict[str, bytes]:
    """Everything under a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
