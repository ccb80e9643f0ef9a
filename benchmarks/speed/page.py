"""Write what was measured as a page: the bars, a table for each row, and the charts beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

from benchmarks.speed.charts import draw_growth, draw_ratios
from benchmarks.speed.machine import describe
from benchmarks.speed.measure import FEW, LONG, TOO_SLOW
from benchmarks.speed.rows import MB, Bar, Growth
from benchmarks.speed.running import Course, Finished

TIMES = "\N{MULTIPLICATION SIGN}"
TEMPLATE = Path(__file__).with_name("template.md")


def write_page(
    path: Path, course: Course, finished: Sequence[Finished], grown: Sequence[tuple[Growth, Sequence[Finished]]]
) -> None:
    """Write the page to `path`, and its charts to the folder beside it that has the page's name."""
    charts = path.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    draw_ratios(charts / "ratios.png", finished)
    for chart, points in grown:
        draw_growth(charts / f"{chart.name}.png", chart, points)
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        machine=describe(course.scratch, course.tools.versions),
        absent=_absent(course.tools.absent),
        runs=course.runs,
        few=FEW,
        slow=TOO_SLOW,
        long=f"{LONG:g}",
        charts=charts.name,
        bars=bars_table(finished),
        rows="\n\n".join(f"### {one.row.title}\n\n{results_table(one)}" for one in finished),
        growths="\n\n".join(
            f"![{chart.title}]({charts.name}/{chart.name}.png)\n\n{growth_table(chart, points)}"
            for chart, points in grown
        ),
    )
    path.write_text(text, encoding="utf-8")


def bars_table(finished: Sequence[Finished]) -> str:
    """Write a line for each bar, with the fastest of the others in that row."""
    return _table(
        ("", "bar", "measured", "met", "fastest other tool"),
        [
            (f"{one.row.title}: `{bar.contender}`", *line, _fastest_peer(one))
            for one in finished
            for bar in one.row.bars
            for line in _bar_lines(one, bar)
        ],
    )


def _bar_lines(one: Finished, bar: Bar) -> Iterator[tuple[str, str, str]]:
    result = one.results[bar.contender]
    base = one.row.contenders[0].name
    if result.failure is not None:
        yield "", result.failure, "**no**"
        return
    if bar.ratio is not None:
        yield (
            f"≤ {bar.ratio:g} {TIMES} `{base}`",
            f"{one.ratio(bar.contender):.2f} {TIMES}",
            _met(one.ratio(bar.contender), bar.ratio),
        )
    if bar.seconds is not None:
        yield f"≤ {bar.seconds:g} s", f"{result.seconds:.2f} s", _met(result.seconds, bar.seconds)
    if bar.memory is not None:
        yield f"≤ {bar.memory / MB:.0f} MB", f"{result.memory / MB:.0f} MB", _met(result.memory, bar.memory)


def _met(value: float, bar: float) -> str:
    return "yes" if value <= bar else "**no**"


def _fastest_peer(one: Finished) -> str:
    peers = [name for name in one.ran()[1:] if not name.startswith("ckptfix")]
    if not peers:
        return ""
    fastest = min(peers, key=one.ratio)
    return f"{fastest}, {one.ratio(fastest):.2f} {TIMES}"


def results_table(one: Finished) -> str:
    """Write a line for each contender: medians, ratio, and peak of memory; or why there is none."""
    base = one.row.contenders[0].name
    lines = []
    for name, result in one.results.items():
        if result.runs:
            numbers = (f"{result.seconds:.3f}", f"{one.ratio(name):.2f}", f"{result.cpu:.3f}")
            lines.append((name, *numbers, f"{result.memory / MB:.1f}", str(len(result.runs))))
        else:
            lines.append((f"{name}: {result.failure}", "", "", "", "", "0"))
    return _table(("", "s", f"{TIMES} {base}", "processor s", "MB", "runs"), lines)


def growth_table(chart: Growth, points: Sequence[Finished]) -> str:
    """Write the seconds of each contender at each point."""
    names = [one.name for one in points[0].row.contenders]
    return _table(
        (chart.axis, *names),
        [
            (f"{at:g}", *(f"{one.results[name].seconds:.3f}" if name in one.ran() else "failed" for name in names))
            for (at, _), one in zip(chart.points, points, strict=True)
        ],
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = " | ".join(["---"] + ["---:"] * (len(head) - 1))
    rows = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (head, *lines)]
    return "\n".join(f"| {row} |" for row in (rows[0], rule, *rows[1:]))


def _absent(options: Sequence[str]) -> str:
    return (
        f"This ckptfix was run without {' and '.join(f'`{one}`' for one in options)}, which it lacks."
        if options
        else ""
    )
