"""kill -9 while several files are written: never a mix of two outputs, and the next run ends what was begun.

Where the names differ, there is a whole output at any time.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .counting import count_kills
from .killing_sets import FIRST
from .soak import SOAK

KILLS = 250 if SOAK else 15


@pytest.mark.parametrize("name", FIRST)
def test_a_killed_run_leaves_no_mix(name: str, tmp_path: Path) -> None:
    for word, value in (("old", 1.0), ("new", 2.0)):
        torch.save({f"w.{n}": torch.full((1000, 250), value + n / 16) for n in range(12)}, tmp_path / f"{word}.pth")
    seen = count_kills("killing_sets", tmp_path, name, KILLS)
    assert "mixed" not in seen
    assert name != "regrouped" or "none" not in seen, seen
    assert seen["the next run ended it"] == KILLS
    assert seen["killed"] > KILLS / 5 and seen["left finished files"] > KILLS / 10, seen
