"""Keep the numbers of a run: how many kills, flips and sizes were tried. `docs/trust.md` shows those of the last."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ckptfix import __version__
from ckptfix.execute.atomic import write_whole

FOLDER = Path(os.environ.get("CKPTFIX_TRUST") or Path(__file__).parents[2] / "build" / "trust")
"""One JSON file for each name."""


def record(name: str, **numbers: int | float | str) -> None:
    """Write the numbers under a name, in the place of those of an earlier run."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {"name": name, "ckptfix": __version__, **numbers}
    write_whole(FOLDER / f"{name}.json", f"{json.dumps(document, indent=1)}\n".encode(), replace=True)
