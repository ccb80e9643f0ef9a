"""The training script of examples/pretrain, on the real weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.weights import mobilenet_v2

SCRIPT = Path(__file__).parents[2] / "examples" / "pretrain" / "train.py"


def test_the_training_script_prepares_its_checkpoint_once(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--source", str(mobilenet_v2()), "--out", str(tmp_path), "--images", "64"]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    second = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert first.splitlines()[0] == "prepared model.safetensors"
    assert second.splitlines()[0] == "found model.safetensors"
    assert first.splitlines()[1:] == second.splitlines()[1:]
    assert (tmp_path / "manifest.json").exists()
