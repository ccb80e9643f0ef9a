"""kill -9 at any moment leaves the old file or the whole new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .counting import count_kills
from .soak import SOAK

KILLS = 500 if SOAK else 50
LAYERS = 15
WIDTH = 1024
"""15 matrices of 4 MiB."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source of 60 MiB, a target, a recipe that moves most and computes some, and an old output."""
    weights = {f"old.{n}": torch.full((WIDTH, WIDTH), float(n)) for n in range(LAYERS)}
    torch.save(weights, tmp_path / "source.pth")
    wanted = {f"new.{n}": torch.zeros(WIDTH, WIDTH, dtype=torch.float16 if n == 0 else None) for n in range(LAYERS)}
    save_file(wanted, tmp_path / "want.safetensors")
    (tmp_path / "recipe.yaml").write_text(
        'ckptfix: 1\nrules:\n  - {op: rename, map: {"old.{p}": "new.{p}"}}\n  - {op: cast, keys: new.0, dtype: F16}\n'
    )
    (tmp_path / "old").write_bytes(os.urandom(1 << 20) * 60)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_a_killed_run_leaves_the_old_file_or_the_new_one(name: str, folder: Path) -> None:
    seen = count_kills("killing", folder, name, KILLS)
    assert "torn" not in seen and seen["old"] + seen.get("new", 0) == KILLS
    assert seen["more than one file"] == 0
    assert seen["files after the next run"] == 1 and seen["the next run wrote the new file"]
    assert seen["killed"] > KILLS / 2 and seen["left a temporary file"] > KILLS / 5, seen
