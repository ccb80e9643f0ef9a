"""The report's files: what they hold, that they are the same twice, and that a hostile key stays text."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from ckptfix.errors import MissingDependency, WriteFailed
from ckptfix.proof.freeze import parse_policy
from ckptfix.proof.training.loop import Rates, Run, Settings
from ckptfix.proof.training.report import FinetuneReport, PolicyResult
from ckptfix.report.finetune import list_metrics, write_finetune
from ckptfix.report.html import finetune_page
from ckptfix.report.plots import choose_colours, draw_curves

_HOSTILE = "a</code><script>alert(1)</script>\"'&\u202e\x00<img src=x onerror=alert(1)>"


def make_run(seed: int, loss: tuple[float, ...] = (2.0, 1.5, 1.0, 0.5), **change: Any) -> Run:
    fields: dict[str, Any] = {
        "accuracy": (0.4, 0.6 + seed / 10), "test_loss": (1.2, 1.0), "seconds": 2.0, "train_seconds": 1.0,
        "drifted": (), "moved": 2, "recalibrated": 1, **change,
    }  # fmt: skip
    return Run(seed, loss, **fields)


def make_report(seeds: int = 2, **runs: Run) -> FinetuneReport:
    """Make a report of three policies without training; `runs` replaces the runs of one."""
    results = {}
    for text in ("frozen", "partial:a.{x:/$b$/}", "scratch"):
        made = (runs[text],) if text in runs else tuple(make_run(seed) for seed in range(seeds))
        results[text] = PolicyResult(parse_policy(text), made, 2, 10, 40, 6 if text == "frozen" else 0, 1)
    data: dict[str, object] = {
        "uri": f"folder:{_HOSTILE}", "train": 8, "test": 20, "classes": ["x", _HOSTILE], "available_classes": 2,
    }  # fmt: skip
    settings = Settings(2, 4, Rates(), torch.device("cpu"), "float32")
    return FinetuneReport(results, settings, tuple(range(seeds)), data, 0.5, "a machine")


_CHECK: dict[str, Any] = {
    "schema_version": 1, "compatible": False, "coverage": {"tensors": 0.99999, "params": 0.5},
    "loaded": ["k"] * 312, "filled": [], "dropped": ["d"],
    "missing": [{"key": _HOSTILE, "shape": [5], "dtype": "F32", "nearest": [_HOSTILE]}],
    "unexpected": [{"key": "u", "from": None, "shape": [], "dtype": "I64", "nearest": []}],
    "mismatched": [{
        "key": "classifier.1.weight", "have": {"shape": [1000, 1280], "dtype": "F32"},
        "want": {"shape": [5, 1280], "dtype": "F32"},
    }],
    "dtypes": [], "collisions": [], "errors": [{"code": "CKF204", "where": _HOSTILE, "message": "m", "hint": None}],
}  # fmt: skip
_VERIFY: dict[str, Any] = {"ok": True, "strict_load": True, "values": None, "forward": True, "parity": {"max_abs": 0.1}}


def make_page(report: FinetuneReport) -> str:
    document = report.to_json()
    svg = draw_curves(document).svg.decode()
    return finetune_page(document, check=_CHECK, verify=_VERIFY, svg=svg)


class Outline(HTMLParser):
    """Collects the tags, their attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_hostile_key_stays_text() -> None:
    outline = Outline(make_page(make_report()))
    assert not {"script", "img", "iframe", "object", "link", "form"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in outline.text
    assert "\\u202e\\x00" in outline.text and "\u202e" not in outline.text


def test_the_page_loads_nothing() -> None:
    page = make_page(make_report())
    assert "<script" not in page and "http:" not in page and "https:" not in page and "@import" not in page
    for name, value in Outline(page).attributes:
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value is not None and value.startswith("#")
    assert page.count("url(") == page.count("url(#")
    assert "default-src 'none'" in page


def test_the_page_shows_the_check_and_the_coverage() -> None:
    text = Outline(make_page(make_report())).text
    assert "classifier.1.weight" in text and "F32 [1000, 1280]" in text and "F32 [5, 1280]" in text
    assert "312 loaded" in text and "1 dropped" in text and "incompatible" in text
    assert "99.9 %" in text and "I64 []" in text and "CKF204" in text
    assert "6 tensors unchanged" in text and "1 recalibrated" in text and "not checked" in text


def test_the_page_stands_without_check_and_verify() -> None:
    document = make_report().to_json()
    page = finetune_page(document, check=None, verify=None, svg=draw_curves(document).svg.decode())
    assert "Coverage" not in page and "Verify" not in page


def test_a_check_that_stopped_early_is_shown_as_far_as_it_exists() -> None:
    document = make_report().to_json()
    check = {"schema_version": 1, "errors": [{"code": "CKF204", "where": None, "message": "no match", "hint": None}]}
    page = finetune_page(document, check=check, verify={}, svg=draw_curves(document).svg.decode())
    assert "no match" in page and "0</b> loaded" in page


def test_a_failure_heads_the_page() -> None:
    report = make_report(
        frozen=make_run(0, drifted=("features.1.running_mean",)),
        scratch=make_run(0, loss=(2.0, float("nan")), accuracy=(), test_loss=()),
    )
    page = make_page(report)
    assert "frozen, seed 0: 1 of 6 frozen tensors changed: features.1.running_mean" in page
    assert "scratch, seed 0: the training loss is nan at step 2" in page
    assert "1 of 6 tensors changed" in page and "not finite" in page


def test_the_same_report_draws_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    first = draw_curves(make_report().to_json())
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    assert draw_curves(make_report().to_json()) == first
    assert matplotlib.rcParams["font.size"] == 30
    assert b"<dc:date>" not in first.svg and b"http://purl.org" not in first.svg
    ElementTree.fromstring(first.svg)
    assert Image.open(BytesIO(first.png)).width == 1800


def test_any_text_makes_a_well_formed_picture_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    document = make_report().to_json()
    document["policies"] = {"partial:\x07$\\frac-->\u6f22<&": document["policies"]["scratch"]}  # type: ignore[index]
    ElementTree.fromstring(draw_curves(document).svg)
    assert not recwarn.list


def test_the_curves_wear_the_promised_colours() -> None:
    colours = choose_colours(["scratch", "partial:a", "frozen", "partial:b", "unfrozen"])
    assert len(set(colours.values())) == 5
    red, blue, black = (bytes.fromhex(colours[name][1:]) for name in ("frozen", "unfrozen", "scratch"))
    assert red[0] > 2 * max(red[1:]) and blue[2] > 2 * max(blue[:2]) and max(black) < 40
    svg = draw_curves(make_report().to_json()).svg.decode()
    assert colours["frozen"] in svg and colours["scratch"] in svg and colours["partial:a"] in svg


def test_a_policy_without_any_number_can_be_drawn() -> None:
    empty = make_run(0, loss=(float("inf"),), accuracy=(), test_loss=())
    assert draw_curves(make_report(1, frozen=empty, scratch=empty).to_json()).svg


def test_the_files_hold_every_measurement(tmp_path: Path) -> None:
    report = make_report()
    paths = write_finetune(report, tmp_path / "deep" / "report", check=_CHECK, verify=_VERIFY)
    assert [path.name for path in paths] == ["metrics.jsonl", "report.json", "curves.png", "curves.svg", "report.html"]
    assert sorted(path.name for path in paths) == sorted(path.name for path in paths[0].parent.iterdir())
    assert json.loads(paths[1].read_text()) == json.loads(json.dumps(report.to_json()))
    lines = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert lines == list(list_metrics(report)) and len(lines) == 3 * 2 * (4 + 2)
    assert lines[:3] == [
        {"policy": "frozen", "seed": 0, "epoch": 1, "step": 1, "loss": 2.0},
        {"policy": "frozen", "seed": 0, "epoch": 1, "step": 2, "loss": 1.5},
        {"policy": "frozen", "seed": 0, "epoch": 1, "step": 2, "accuracy": 0.4, "test_loss": 1.2},
    ]


def test_writing_twice_replaces_the_files_by_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_finetune(make_report(), tmp_path, check=None, verify=None)]
    again = [path.read_bytes() for path in write_finetune(make_report(), tmp_path, check=None, verify=None)]
    assert first == again


def test_a_loss_that_is_not_finite_is_null_in_the_measurements() -> None:
    report = make_report(frozen=make_run(0, loss=(2.0, float("nan")), accuracy=(), test_loss=()))
    assert next(line for line in list_metrics(report) if line["step"] == 2)["loss"] is None


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(WriteFailed, match="cannot make the folder"):
        write_finetune(make_report(), tmp_path / "report", check=None, verify=None)


def test_without_matplotlib_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r'matplotlib.*pip install "ckptfix\[plot\]"'):
        write_finetune(make_report(), tmp_path / "report", check=None, verify=None)
    assert not (tmp_path / "report").exists()
