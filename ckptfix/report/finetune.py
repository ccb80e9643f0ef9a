"""Write the report of a fine-tune into a folder: measurements, document, curves and page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ckptfix.errors import WriteFailed
from ckptfix.execute.atomic import write_whole
from ckptfix.proof.training.report import FinetuneReport, PolicyResult
from ckptfix.report.html import finetune_page
from ckptfix.report.plots import draw_curves

# The documents of `check` and `verify --json`.
Document = Mapping[str, Any]


def write_finetune(
    report: FinetuneReport, directory: str | os.PathLike[str], *, check: Document | None, verify: Document | None
) -> list[Path]:
    """Write `metrics.jsonl`, `report.json`, `curves.png`, `curves.svg` and `report.html`, each whole or not at all.

    A folder that is not there is made; files of these names are replaced. Raises MissingDependency without
    matplotlib, before anything is written, and WriteFailed.
    """
    document = report.to_json()
    drawing = draw_curves(document)
    page = finetune_page(document, check=check, verify=verify, svg=drawing.svg.decode())
    lines = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in list_metrics(report))
    contents = {
        "metrics.jsonl": lines.encode(),
        "report.json": f"{json.dumps(document, indent=2, allow_nan=False)}\n".encode(),
        "curves.png": drawing.png,
        "curves.svg": drawing.svg,
        "report.html": page.encode(),
    }
    root = Path(directory)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"cannot make the folder: {error.strerror}", where=str(root)) from error
    for name, content in contents.items():
        write_whole(root / name, content, replace=True)
    return [root / name for name in contents]


def list_metrics(report: FinetuneReport) -> Iterator[dict[str, object]]:
    """Give a line for every step (`loss`) and every evaluation (`accuracy`, `test_loss`), in the order of the runs."""
    for name, result in report.policies.items():
        yield from _list_runs(name, result)


def _list_runs(name: str, result: PolicyResult) -> Iterator[dict[str, object]]:
    per_epoch = result.steps_per_epoch
    for run in result.runs:
        for step, loss in enumerate(run.loss, 1):
            epoch = (step - 1) // per_epoch + 1
            place: dict[str, object] = {"policy": name, "seed": run.seed, "epoch": epoch, "step": step}
            yield {**place, "loss": _finite(loss)}
            if step == epoch * per_epoch and epoch <= len(run.accuracy):
                yield {**place, "accuracy": run.accuracy[epoch - 1], "test_loss": _finite(run.test_loss[epoch - 1])}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
