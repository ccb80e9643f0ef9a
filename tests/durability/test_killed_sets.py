"""kill -9 while several files are written: never a mix of two outputs, and the next run ends what was begun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trust import record

from .killing_sets import FIRST
from .soak import SOAK

ROOT = Path(__file__).parents[2]
KILLS = 250 if SOAK else 15


@pytest.mark.parametrize("name", FIRST)
def test_a_killed_run_leaves_no_mix(name: str, tmp_path: Path) -> None:
    for word, value in (("old", 1.0), ("new", 2.0)):
        torch.save({f"w.{n}": torch.full((1000, 250), value + n / 16) for n in range(12)}, tmp_path / f"{word}.pth")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.durability.killing_sets", str(tmp_path), name, str(KILLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    record(f"kills-{name}", **{word.replace(" ", "_"): number for word, number in seen.items()})
    assert "mixed" not in seen
    assert seen["the next run ended it"] == KILLS
    assert seen["killed"] > KILLS / 5 and seen["left finished files"] > KILLS / 10, seen
