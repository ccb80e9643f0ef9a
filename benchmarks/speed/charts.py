"""Draw what was measured: ratios as bars, growth as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.speed.rows import Growth
from benchmarks.speed.running import Finished

OURS, OTHERS = "#c2410c", "#94a3b8"


def draw_ratios(path: Path, finished: Sequence[Finished]) -> None:
    """Draw a panel for each row, with the time of each contender over that of the first."""
    heights = [len(one.ran()) + 1.2 for one in finished]
    figure = Figure(figsize=(9, 0.27 * sum(heights)), dpi=110, layout="constrained")
    panels = figure.subplots(len(finished), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)[:, 0]
    for panel, one in zip(panels, finished, strict=True):
        names = one.ran()
        colours = [OURS if name.startswith("ckptfix") else OTHERS for name in names]
        bars = panel.barh(names, [one.ratio(name) for name in names], color=colours)
        panel.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.set_title(f"{one.row.title} (times of {names[0]})", loc="left", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_growth(path: Path, chart: Growth, points: Sequence[Finished]) -> None:
    """Draw a line for each contender, both axes logarithmic."""
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for contender in points[0].row.contenders:
        there = [(at, one) for (at, _), one in zip(chart.points, points, strict=True) if contender.name in one.ran()]
        axes.plot(
            [at for at, _ in there],
            [one.results[contender.name].seconds for _, one in there],
            marker="o",
            label=contender.name,
            linewidth=2.5 if contender.name.startswith("ckptfix") else 1.5,
        )
    axes.set(xscale="log", yscale="log", xlabel=chart.axis, ylabel="seconds", title=chart.title)
    ticks = [at for at, _ in chart.points]
    axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)
