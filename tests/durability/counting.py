"""Run a driver that kills runs at random moments, in a process of its own, and count what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.trust import record

ROOT = Path(__file__).parents[2]


def count_kills(driver: str, folder: Path, name: str, kills: int) -> Mapping[str, int]:
    """Run `driver`, a module beside this one, on the output `name` in a folder. What it saw goes onto the page too."""
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.durability.{driver}", str(folder), name, str(kills)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seen: dict[str, int] = json.loads(ran.stdout)
    record(f"kills-{name}", **{word.replace(" ", "_"): number for word, number in seen.items()})
    return seen
