"""Reproduce the table of docs/performance.md: `python -m benchmarks.speed --out docs/performance.md`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.speed.measure import FEW
from benchmarks.speed.page import results_table, write_page
from benchmarks.speed.rows import Growth, growths, rows
from benchmarks.speed.running import Course, Finished
from benchmarks.speed.tools import find_tools


@click.command()
@click.option("--scratch", type=click.Path(file_okay=False, path_type=Path), help="Where files are made and deleted.")
@click.option("--size", default=2.0, show_default=True, metavar="GB", help="Bytes of a checkpoint.")
@click.option("--runs", default=7, show_default=True, metavar="N", help="Runs of each command.")
@click.option("--only", multiple=True, metavar="ROW", help="Run this row or chart. Repeatable.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the page, and a folder of charts.")
def main(scratch: Path | None, size: float, runs: int, only: tuple[str, ...], out: Path | None) -> None:
    """Measure ckptfix beside cp and other tools, and say what each took."""
    total = round(size * 1e9)
    table = [row for row in rows(total) if not only or row.name in only]
    charts = [chart for chart in growths(total) if not only or chart.name in only]
    if not table and not charts:
        raise click.UsageError(f"no such row: {', '.join(only)}")
    if scratch:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        wanted = {one.needs for row in table for one in row.contenders if one.needs}
        course = Course(Path(folder), find_tools(Path(folder), wanted), runs)
        finished = list(_told(course.run(row) for row in table))
        course.clear()
        grown = {chart.name: list(_told(_points(replace(course, runs=min(runs, FEW)), chart))) for chart in charts}
        if out:
            write_page(out, course, finished, [(chart, grown[chart.name]) for chart in charts])


def _points(course: Course, chart: Growth) -> Iterator[Finished]:
    for row in chart.rows():
        yield course.run(row)
        course.clear()


def _told(finished: Iterable[Finished]) -> Iterator[Finished]:
    for one in finished:
        click.echo(f"\n{one.row.title}\n{results_table(one)}")
        yield one


if __name__ == "__main__":
    main()
