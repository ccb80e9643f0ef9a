"""Draw the curves of a fine-tune: training loss and test accuracy, every policy in its own colour."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any
from warnings import catch_warnings

from msgspec import Struct

from ckptfix.errors import MissingDependency

# The documents are JSON and the figures untyped matplotlib: both are `Any` here.
Document = Mapping[str, Any]

_COLOURS = {"frozen": "#d1242f", "unfrozen": "#1f6feb", "scratch": "#16181d"}
_PARTIAL_COLOURS = ("#e8830c", "#2da44e", "#8250df", "#0f8b8d", "#bf3989", "#8a6d3b")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ROW = 0.225
"""The height of a line of the legend, in inches."""
_INK, _FAINT_INK, _GRID = "#24292f", "#6e7781", "#e6e8eb"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ckptfix",  # the ids in the SVG would be random
    "svg.fonttype": "path",  # the picture looks the same where the font is missing
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 11,
    "axes.edgecolor": "#afb8c1",
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "text.parse_math": False,  # a `$` in a pattern is no formula
    "xtick.color": _FAINT_INK,
    "ytick.color": _FAINT_INK,
}
_NO_DATE = {"Date": None, "Creator": None, "Format": None, "Type": None}


class Drawing(Struct, frozen=True):
    """One picture in two encodings, 1800 pixels wide and scalable."""

    png: bytes
    svg: bytes


class _Curve(Struct, frozen=True):
    """How one policy looks, and its object of `finetune --json`."""

    name: str
    colour: str
    marker: str
    values: Document


def draw_curves(document: Document) -> Drawing:
    """Draw the document of `finetune --json`; the same document gives the same bytes.

    Raises MissingDependency without matplotlib.
    """
    with _matplotlib() as figures:
        curves = _dress(document["policies"])
        height = 5.6 + _ROW * len(curves)  # inches, as everything below
        figure = figures.Figure(figsize=(12, height), dpi=150, facecolor="white")
        top, bottom = 1 - 0.95 / height, (1.25 + _ROW * len(curves)) / height
        grid = figure.add_gridspec(1, 2, left=0.065, right=0.98, top=top, bottom=bottom, wspace=0.17)
        loss, accuracy = (figure.add_subplot(grid[0, column]) for column in (0, 1))
        _draw_loss(loss, curves, document)
        _draw_accuracy(accuracy, curves, document)
        _write_texts(figure, document)
        png, svg = io.BytesIO(), io.BytesIO()
        with catch_warnings(action="ignore", category=UserWarning):  # a letter that the font lacks is drawn as a box
            figure.savefig(png, format="png", metadata={"Software": None})
            figure.savefig(svg, format="svg", metadata=_NO_DATE)
        return Drawing(png.getvalue(), svg.getvalue())


@contextmanager
def _matplotlib() -> Iterator[Any]:
    """Lend matplotlib's figures under our style; neither pyplot nor a window is involved."""
    try:
        import matplotlib
        import matplotlib.figure
    except ModuleNotFoundError as error:
        hint = 'pip install "ckptfix[plot]"'
        raise MissingDependency(f"the curves need {error.name}, which is not installed", hint=hint) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a matplotlibrc of the user's would change the bytes
        matplotlib.rcParams.update(_STYLE)
        yield matplotlib.figure


def choose_colours(policies: Iterable[str]) -> dict[str, str]:
    """Give each policy its colour: frozen red, unfrozen blue, scratch black, the partial ones others in turn."""
    others = cycle(_PARTIAL_COLOURS)
    return {name: _COLOURS.get(name) or next(others) for name in policies}


def _dress(policies: Mapping[str, Document]) -> list[_Curve]:
    markers = cycle(_MARKERS)
    return [_Curve(name, colour, next(markers), policies[name]) for name, colour in choose_colours(policies).items()]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Average over a centred window, which shrinks at both ends; what is not a number stays out."""
    smooth = []
    for index, value in enumerate(values):
        reach = min(window // 2, index, len(values) - 1 - index)
        part = [near for near in values[index - reach : index + reach + 1] if not math.isnan(near)]
        smooth.append(math.nan if math.isnan(value) else math.fsum(part) / len(part))
    return smooth


def _prepare(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", pad=10)
    axes.set_xlabel(x, labelpad=7)
    axes.set_ylabel(y, labelpad=7)
    axes.grid(axis="y", color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_loss(axes: Any, curves: Sequence[_Curve], document: Document) -> None:
    _prepare(axes, "Training loss", f"step (batch of up to {document['batch_size']})", "cross-entropy (nats)")
    for curve in curves:
        steps, raw = curve.values["steps"], _numbers(curve.values["loss"])
        window = curve.values["steps_per_epoch"]
        axes.plot(steps, raw, color=curve.colour, alpha=0.22, linewidth=1)
        axes.plot(steps, _smooth(raw, window), color=curve.colour, linewidth=2.2, label=_word_loss(curve))
        if bounds := curve.values.get("loss_range"):
            low, high = (_smooth(_numbers([pair[side] for pair in bounds]), window) for side in (0, 1))
            axes.fill_between(steps, low, high, color=curve.colour, alpha=0.12, linewidth=0)
    axes.set_xlim(left=1)
    axes.set_ylim(bottom=0)
    _draw_legend(axes, "mean loss of the last epoch")


def _draw_accuracy(axes: Any, curves: Sequence[_Curve], document: Document) -> None:
    _prepare(axes, "Test accuracy", "epoch", "correct (%)")
    for curve in curves:
        epochs = curve.values["accuracy_epochs"]
        percent = [100 * value for value in _numbers(curve.values["accuracy"])]
        look = {"color": curve.colour, "marker": curve.marker, "markersize": 5, "linewidth": 2.2}
        axes.plot(epochs, percent, label=_word_accuracy(curve), **look)
        if bounds := curve.values.get("accuracy_range"):
            low, high = ([100 * value for value in _numbers([pair[side] for pair in bounds])] for side in (0, 1))
            axes.fill_between(epochs, low, high, color=curve.colour, alpha=0.12, linewidth=0)
    chance = 100 * document["chance"]
    axes.axhline(chance, color=_FAINT_INK, linestyle=(0, (5, 4)), linewidth=1.2)
    axes.text(
        0.995, chance + 1.2, f"chance {chance:.0f} %", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
        color=_FAINT_INK, fontsize=10,
    )  # fmt: skip
    axes.set_ylim(0, 102)
    axes.xaxis.get_major_locator().set_params(integer=True)
    seeds = " (lowest to highest seed)" if len(document["seeds"]) > 1 else ""
    _draw_legend(axes, f"accuracy after the last epoch{seeds}")


def _draw_legend(axes: Any, title: str) -> None:
    """Put the legend with the final values under its panel, where it hides no curve."""
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(-0.012, -0.155), title=title, alignment="left", frameon=False,
        handlelength=2.2, borderaxespad=0, labelspacing=0.45, fontsize=11, title_fontsize=10,
    )  # fmt: skip
    legend.get_title().set_color(_FAINT_INK)


def _word_loss(curve: _Curve) -> str:
    loss = curve.values["last_epoch_loss"]
    return f"{_shorten(curve.name)}:  {'not finite' if loss is None else format(loss, '.3g')}"


def _word_accuracy(curve: _Curve) -> str:
    """Word the final accuracy, as `frozen:  94.5 % (94.0 to 95.0)`."""
    name = _shorten(curve.name)
    if not curve.values["accuracy"]:
        return f"{name}:  none"
    bounds = curve.values.get("accuracy_range")
    spread = f" ({100 * bounds[-1][0]:.1f} to {100 * bounds[-1][1]:.1f})" if bounds else ""
    return f"{name}:  {100 * curve.values['accuracy'][-1]:.1f} %{spread}"


def _shorten(text: str) -> str:
    shown = show_unprintable(text)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def show_unprintable(text: str) -> str:
    """Show what does not print by its number, as `\\u202e`: neither XML nor a reader can take it as it is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _write_texts(figure: Any, document: Document) -> None:
    data, seeds = document["data"], document["seeds"]
    height = figure.get_figheight()
    heading = f"Fine-tune on {_shorten(data['uri'])}: {len(data['classes'])} classes, {data['train']} training images"
    figure.text(0.02, 1 - 0.2 / height, heading, fontsize=15, fontweight="bold", va="top")
    notes = [f"Mean of {len(seeds)} seeds, band from lowest to highest." if len(seeds) > 1 else "One seed."]
    notes.append("Loss: thin as measured, thick smoothed over one epoch.")
    if any(policy["recalibrated"] for policy in document["policies"].values()):
        notes.append("BatchNorm that trains is recalibrated before each evaluation.")
    figure.text(0.02, 0.17 / height, " ".join(notes), fontsize=9.5, color=_FAINT_INK, va="bottom")
