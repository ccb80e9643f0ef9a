"""Nothing silent: whatever the recipe, every tensor of both sides has exactly one fate."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckptfix.expr import sources
from ckptfix.planning import Plan
from ckptfix.tensors import DType

from .making import errors, manifest, plan, rows, spec

KEYS = [f"{module}.{number}.{name}" for module in ("enc", "dec", "fc") for number in (0, 1) for name in ("w", "b")]
SPECS = st.sampled_from(
    [spec(2), spec(2, 3), spec(3, 2), spec(2, dtype=DType.BF16), spec(2, dtype=DType.I64), spec(dtype=DType.BOOL)]
)
TABLES = st.dictionaries(st.sampled_from(KEYS), SPECS, max_size=8)
PATTERNS = st.sampled_from(
    [
        "**",
        "enc.**",
        "dec.*.w",
        "*.0.*",
        "{m}.{i}.w",
        "fc.{i:int}.b",
        "{m:enc|dec}.1.w",
        "{k:**}.b",
        "enc.0.w",
        "nothing",
    ]
)
PAIRS = st.sampled_from(
    [
        ("enc.{k:**}", "dec.{k}"),
        ("dec.{k:**}", "enc.{k}"),
        ("{m}.{i}.w", "{m}.{i}.b"),
        ("{m}.0.{p}", "{m}.1.{p}"),
        ("fc.{i}.{p}", "fc.{i+1}.{p}"),
        ("{m}.{i}.b", "{m}.{1-i}.w"),
        ("{x:**}", "pre.{x}"),
        ("*.1.w", "enc.1.w"),
    ]
)
RULES = st.one_of(
    st.builds(lambda pairs: {"op": "rename", "map": dict(pairs)}, st.lists(PAIRS, min_size=1, max_size=3)),
    st.builds(
        lambda keys, when: {"op": "drop", "keys": keys, "when": when},
        PATTERNS,
        st.sampled_from(["always", "unexpected", "mismatched"]),
    ),
    st.builds(lambda pair: {"op": "copy", "from": pair[0], "to": pair[1]}, PAIRS),
    st.builds(lambda: {"op": "copy", "from": "enc.0.w", "to": "{m}.{i}.w"}),
    st.builds(
        lambda keys, value, when: {"op": "fill", "keys": keys, "value": value, "when": when},
        PATTERNS,
        st.sampled_from(["target", "zeros", 2, "normal"]),
        st.sampled_from(["missing", "always"]),
    ),
    st.builds(lambda keys: {"op": "cast", "keys": keys, "dtype": "F16"}, PATTERNS),
    st.builds(
        lambda keys, mode: {"op": "resize", "keys": keys, "layout": "n ...", "axes": ["n"], "mode": mode},
        PATTERNS,
        st.sampled_from(["crop", "pad", "linear"]),
    ),
)


def check_fates(made: Plan) -> None:
    report = made.report().to_json()
    fates = [report["loaded"], report["filled"]]
    fates += [[row["key"] for row in report[kind]] for kind in ("missing", "mismatched")]
    assert Counter(key for keys in fates for key in keys) == Counter(list(made.want))

    used = {key for row in made.rows.values() for key in sources(row.expr)}
    landed = {key for target, row in made.rows.items() if target in made.want for key in sources(row.expr)}
    unexpected = {key for row in report["unexpected"] for key in row["from"]}
    assert used == landed | unexpected
    assert not used & set(report["dropped"])
    collided = {
        part for step in made.steps for edit in step.edit.made for part in sources(edit.expr) if step.collisions
    }
    assert set(made.have) - used - set(report["dropped"]) <= collided
    if not collided:
        assert used | set(report["dropped"]) == set(made.have)

    assert {row["key"] for row in report["unexpected"]} == set(made.rows) - set(made.want)
    assert set(report["dropped"]) <= set(made.have)
    assert {row["key"] for row in report["dtypes"]} <= {*report["loaded"], *report["filled"]}
    clean = not (report["missing"] or report["mismatched"] or report["unexpected"])
    assert report["compatible"] == (clean and not report["errors"]) == made.is_complete == (made.exit_code == 0)
    assert made.exit_code == (2 if report["errors"] else 0 if clean else 1)
    assert all(step.errors for step in made.steps if step.collisions)


@given(TABLES, TABLES, st.lists(RULES, max_size=5), st.booleans())
def test_every_tensor_has_exactly_one_fate(
    have: dict[str, Any], want: dict[str, Any], rules: list[dict[str, Any]], optional: bool
) -> None:
    rules = [{**rule, "optional": optional} for rule in rules]
    check_fates(plan(rules, have, want))
    check_fates(plan(rules, have, want, no_initial_values="no code"))
    check_fates(plan(rules, have, want).with_dtype(DType.F64))


@given(TABLES, st.lists(RULES, max_size=4))
def test_an_unbroken_row_fits_the_spec_it_promises(have: dict[str, Any], rules: list[dict[str, Any]]) -> None:
    made = plan(rules, have, have)
    for key, row in made.outputs.items():
        assert row.expr.spec.shape == made.want[key].shape
    for key, row in made.rows.items():
        assert row.rule is None or row.rule <= len(rules)
        if row.rule is None:
            assert str(row.expr) == key


def test_without_rules_nothing_is_touched() -> None:
    made = plan([], {"b": [1], "a": [2]}, {"a": [2], "b": [1]})
    assert rows(made) == {"b": "b", "a": "a"}
    assert list(made.outputs) == ["a", "b"]
    assert made.report().to_json()["coverage"] == {"tensors": 1.0, "params": 1.0}


def test_twenty_thousand_keys_and_fifty_rules_are_planned_in_seconds() -> None:
    blocks = ("attn.q", "attn.k", "attn.v", "mlp.fc1", "norm")
    keys = [f"model.layers.{i}.{block}.{name}" for i in range(2000) for block in blocks for name in ("weight", "bias")]
    have = manifest({key: [2, 3] for key in keys})
    want = manifest({key.replace("model.", "net9."): [2, 3] for key in keys} | {f"new.{i}.w": [1] for i in range(500)})
    rules: list[dict[str, Any]] = []
    for step in range(10):
        old, new = "model" if step == 0 else f"net{step - 1}", f"net{step}"
        pairs = {f"{old}.layers.{{i}}.{tail}": f"{new}.layers.{{i}}.{tail}" for tail in ("attn.{q}.{p}", "mlp.{f}.{p}")}
        rules += [
            {"op": "rename", "map": pairs | {f"{old}.layers.{{i}}.norm.{{p}}": f"{new}.layers.{{i}}.norm.{{p}}"}},
            {"op": "drop", "keys": ["**", f"{new}.*.{{i:int}}.attn.*.bias", "x.**"], "when": "mismatched"},
            {"op": "cast", "keys": ["**.norm.weight", "**.norm.bias"], "dtype": ("F16", "BF16")[step % 2]},
            {"op": "fill", "keys": [f"new.{step}*.w", "new.{i:/[0-9]+/}.w"], "value": "zeros"},
            {"op": "resize", "keys": [f"{new}.**.fc1.weight"], "layout": "o i", "axes": {"o": 2}, "mode": "crop"},
        ]
    start = time.process_time()
    made = plan([{**rule, "optional": True} for rule in rules], have, want)
    report = made.report()
    assert time.process_time() - start < 10
    assert errors(made) == []
    assert len(report.loaded) == 20_000
    assert len(report.filled) == 500

    start = time.process_time()
    apart = plan([], have, want).report()
    assert time.process_time() - start < 6
    assert apart.missing[0].nearest
    assert len(apart.missing) == 20_500
