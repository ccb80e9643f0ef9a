"""The documents of `check --json` and `plan --json`, field by field."""

from __future__ import annotations

import json

from ckptfix.tensors import DType

from .making import plan, spec

RECIPE = """ckptfix: 1
rules:
  - op: rename
    map: {"module.{k:**}": "{k}"}
  - {op: drop, keys: [old.w, gone]}
  - {op: fill, keys: head.w, value: target, seed: 7}
"""
HAVE = {
    "module.stem.w": spec(4, 3, dtype=DType.F16),
    "plain": [2],
    "old.w": [5],
    "gone": [1],
    "stem.bais": [4],
    "turned": [3, 5],
}
WANT = {"stem.w": [4, 3], "plain": [2], "head.w": [2, 2], "stem.bias": [4], "turned": [5, 3]}


def test_the_report_of_a_plan() -> None:
    document = json.loads(json.dumps(plan(RECIPE, HAVE, WANT).to_json()))
    outputs = document.pop("outputs")
    wrappers = document.pop("wrappers")
    assert document.pop("notes") == []
    assert document == {
        "schema_version": 1,
        "compatible": False,
        "coverage": {"tensors": 2 / 5, "params": 14 / 37},
        "loaded": ["stem.w", "plain"],
        "filled": ["head.w"],
        "dropped": ["old.w", "gone"],
        "missing": [
            {"key": "stem.bias", "shape": [4], "dtype": "F32", "nearest": ["stem.bais"], "hint": None},
        ],
        "unexpected": [
            {"key": "stem.bais", "from": ["stem.bais"], "shape": [4], "dtype": "F32", "nearest": ["stem.bias"]},
        ],
        "mismatched": [
            {
                "key": "turned",
                "have": {"shape": [3, 5], "dtype": "F32"},
                "want": {"shape": [5, 3], "dtype": "F32"},
            }
        ],
        "dtypes": [
            {"key": "stem.w", "have": {"shape": [4, 3], "dtype": "F16"}, "want": {"shape": [4, 3], "dtype": "F32"}}
        ],
        "collisions": [],
        "errors": [],
    }
    assert wrappers == []
    assert outputs == {
        "stem.w": {"from": ["module.stem.w"], "rule": 1, "line": 3, "how": "module.stem.w"},
        "plain": {"from": ["plain"], "rule": None, "line": None, "how": "plain"},
        "head.w": {"from": [], "rule": 3, "line": 6, "how": "target(head.w, seed=7)"},
    }


def test_check_and_plan_agree() -> None:
    made = plan(RECIPE, HAVE, WANT)
    document = dict(made.to_json())
    del document["outputs"]
    assert document == made.report().to_json()
    assert str(made.report()) == ("2 of 5 tensors loaded, 1 filled, 2 dropped, 1 missing, 1 unexpected, 1 mismatched")


def test_errors_and_collisions_of_the_report() -> None:
    text = "ckptfix: 1\nrules:\n  - {op: drop, keys: plian}\n  - {op: copy, from: gone, to: plain}\n"
    report = plan(text, HAVE, WANT).report().to_json()
    assert report["errors"] == [
        {"code": "CKF204", "where": "recipe:3: drop", "message": "'plian' matches no key", "hint": "nearest: plain"},
        {
            "code": "CKF205",
            "where": "recipe:4: copy",
            "message": "rule 2 makes 'plain' from 'gone', which is already there, made by the checkpoint itself",
            "hint": "drop or rename one of them first",
        },
    ]
    assert report["collisions"] == [{"key": "plain", "rules": [None, 2]}]
    assert report["compatible"] is False


def test_what_the_source_says_was_filled_is_not_called_loaded() -> None:
    report = plan([], {"a": [2], "b": [2]}, {"a": [2], "b": [2]}).report(also_filled=["b", "elsewhere"])
    assert (report.loaded, report.filled) == (("a",), ("b",))
    assert report.to_json()["coverage"] == {"tensors": 0.5, "params": 0.5}
    assert report.compatible


def test_coverage_of_nothing_is_whole() -> None:
    assert plan([], {}, {}).report().to_json()["coverage"] == {"tensors": 1.0, "params": 1.0}
    assert plan([], {}, {"a": [0]}).report().to_json()["coverage"] == {"tensors": 0.0, "params": 0.0}
    assert plan([], {"a": [0]}, {"a": [0]}).report().to_json()["coverage"] == {"tensors": 1.0, "params": 1.0}
