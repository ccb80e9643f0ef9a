"""Measure how often inference finds the proven mapping: `python -m benchmarks.suggest FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

from benchmarks.judge import Judge, Tools
from benchmarks.methods import Answer, run_baseline, run_suggest, run_weightbridge
from benchmarks.pair import Pair, blinded, load_pair, write_source, write_target

EVIDENCE = ("names", "shapes", "order", "classes", "values")
BASELINES = ("exact", "lockstep", "zip", "fuzzy")
ORDERS = {"file": ".pth", "sorted": ".safetensors"}
"""In which order the source's keys come, and the file that lists them so."""


@dataclass(frozen=True)
class Row:
    """What one method made of one pair in one order of the source's keys. `keys` are those that are scored."""

    pair: str
    order: str
    method: str
    perfect: bool
    keys: int
    claimed: int
    right: int
    wrong: int
    ambiguous: int
    unresolved: int
    filled: int
    rules: int
    seconds: float
    error: str | None
    wrong_keys: tuple[str, ...]
    missed_keys: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How every pair is run."""

    tools: Tools
    blind: int | None = None
    without: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()


def measure(settings: Settings, folder: Path) -> list[Row]:
    """Run every method on one pair, in both orders."""
    torch.set_num_threads(1)
    pair = load_pair(folder)
    if settings.blind is not None:
        pair = blinded(pair, settings.blind)
    with TemporaryDirectory() as scratch:
        return list(_rows(settings, pair, Path(scratch)))


def _rows(settings: Settings, pair: Pair, scratch: Path) -> Iterator[Row]:
    judge = Judge(pair, settings.tools)
    lockfile = write_target(pair, scratch / "target.json")
    for order, suffix in ORDERS.items():
        source = write_source(pair, scratch / f"source{suffix}")
        yield _row(judge, order, "suggest", run_suggest(source, lockfile, settings.without))
        listed = pair if order == "file" else pair.sorted()
        for name in settings.baselines:
            found = run_weightbridge(listed) if name == "weightbridge" else run_baseline(settings.tools, name, listed)
            yield _row(judge, order, name, found)


def _row(judge: Judge, order: str, method: str, answer: Answer) -> Row:
    verdict = judge.judge(answer.output)
    missed = [key for key in verdict.scored if key not in verdict.right and key not in verdict.wrong]
    return Row(
        pair=judge.pair.name,
        order=order,
        method=method,
        perfect=verdict.perfect,
        keys=len(verdict.scored),
        claimed=len(verdict.claimed),
        right=len(verdict.right),
        wrong=len(verdict.wrong),
        ambiguous=answer.ambiguous,
        unresolved=answer.unresolved,
        filled=answer.filled,
        rules=answer.rules,
        seconds=round(answer.seconds, 3),
        error=answer.error,
        wrong_keys=tuple(sorted(verdict.wrong)),
        missed_keys=tuple(missed),
    )


def totals(rows: Sequence[Row]) -> dict[str, float]:
    """Sum up the rows of one method in one order; `accuracy` is the mean over pairs, `precision` over all claims."""
    count = max(len(rows), 1)
    claimed, wrong = sum(row.claimed for row in rows), sum(row.wrong for row in rows)
    return {
        "pairs": len(rows),
        "perfect": sum(row.perfect for row in rows),
        "accuracy": round(sum(row.right / max(row.keys, 1) for row in rows) / count, 4),
        "precision": round((claimed - wrong) / claimed, 4) if claimed else 1.0,
        "keys": sum(row.keys for row in rows),
        "right": sum(row.right for row in rows),
        "claimed": claimed,
        "wrong": wrong,
        "pairs_with_wrong": sum(row.wrong > 0 for row in rows),
        "ambiguous": sum(row.ambiguous for row in rows),
        "unresolved": sum(row.unresolved for row in rows),
        "errors": sum(row.error is not None for row in rows),
        "seconds": round(sum(row.seconds for row in rows), 2),
        "slowest": max((row.seconds for row in rows), default=0.0),
    }


def all_totals(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Sum up every method and order."""
    kinds = dict.fromkeys((row.method, row.order) for row in rows)
    return {
        f"{method} {order}": totals([row for row in rows if (row.method, row.order) == (method, order)])
        for method, order in sorted(kinds, key=lambda kind: kind[0] != "suggest")
    }


def line(row: Row) -> str:
    """Write a row as text."""
    return (
        f"{row.pair:40} {row.order:6} {row.method:12} {'perfect' if row.perfect else '-':8}"
        f"right {row.right:4}/{row.keys:<4} wrong {row.wrong:<4} ambiguous {row.ambiguous:<4} "
        f"unresolved {row.unresolved:<4} filled {row.filled:<4} rules {row.rules:<4} {row.seconds:7.2f} s"
        + (f"  {row.error.splitlines()[0][:160]}" if row.error else "")
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="NAME", help="Run this pair. Repeatable.")
@click.option("--jobs", default=1, show_default=True, help="Pairs to run at the same time.")
@click.option("--blind", type=int, metavar="SEED", help="Replace every word of the source's keys by an unseen one.")
@click.option("--drop", multiple=True, type=click.Choice(EVIDENCE), help="Infer without this evidence. Repeatable.")
@click.option("--baselines", is_flag=True, help="Run simpler methods too, and weightbridge where it is installed.")
@click.option("--json", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write rows and totals.")
def main(
    folder: Path,
    only: tuple[str, ...],
    jobs: int,
    blind: int | None,
    drop: tuple[str, ...],
    baselines: bool,
    report: Path | None,
) -> None:
    """Run inference on every pair in FOLDER, and compare each tensor that the recipe writes with the proven one."""
    pairs = [path.parent for path in sorted(folder.rglob("truth.json")) if not only or path.parent.name in only]
    if not pairs:
        raise click.UsageError(f"no pair in {folder}")
    others = (*BASELINES, *(["weightbridge"] if find_spec("weightbridge") else [])) if baselines else ()
    work = partial(measure, Settings(Tools.find(folder), blind, drop, others))
    rows: list[Row] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for row in chain.from_iterable(pool.map(work, pairs) if jobs > 1 else map(work, pairs)):
            rows.append(row)
            click.echo(line(row))
    summary = all_totals(rows)
    for kind, numbers in summary.items():
        click.echo(f"== {kind}: " + "  ".join(f"{name} {number:g}" for name, number in numbers.items()))
    if report is not None:
        document = {"blind": blind, "without": drop, "totals": summary, "rows": [asdict(row) for row in rows]}
        report.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
