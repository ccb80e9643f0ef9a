"""The meaning of each rule and of their order."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from ckptfix.errors import IncompletePlan, PlanErrors, RuleError
from ckptfix.tensors import DType

from .making import errors, manifest, plan, rows, spec

BUILD = "the target is a list of shapes"


def rename(**pairs: str) -> dict[str, Any]:
    return {"op": "rename", "map": pairs}


def test_rules_run_in_order_and_each_sees_the_table_of_the_one_before() -> None:
    made = plan([rename(a="b"), rename(b="c"), {"op": "drop", "keys": "c"}], {"a": [1], "x": [1]}, {"x": [1]})
    assert rows(made) == {"x": "x"}
    assert made.dropped == {"a": 3}
    assert errors(plan([rename(b="c"), rename(a="b")], {"a": [1]}, {"b": [1]})) != []


def test_the_pairs_of_one_map_apply_at_once() -> None:
    have = {"a": [1], "b": [2], "c": [3]}
    assert rows(plan([rename(a="b", b="c", c="a")], have, {})) == {"b": "a", "c": "b", "a": "c"}
    one_by_one = plan([rename(a="t"), rename(b="a"), rename(t="b")], have, {})
    assert rows(one_by_one) == {"c": "c", "a": "b", "b": "a"}


def test_two_pairs_with_one_result_are_no_error() -> None:
    made = plan([{"op": "rename", "map": {"a.{i}": "b.{i}", "{x}.0": "b.0"}}], {"a.0": [1]}, {"b.0": [1]})
    assert made.is_complete
    assert made.rows["b.0"].rule == 1


def test_a_key_made_twice_keeps_the_first_and_names_both_rules() -> None:
    made = plan([rename(a="c"), {"op": "copy", "from": "b", "to": "c"}], {"a": [1], "b": [1]}, {"c": [1], "b": [1]})
    assert rows(made) == {"b": "b", "c": "a"}
    assert [(one.key, one.rules) for step in made.steps for one in step.collisions] == [("c", (1, 2))]
    assert made.report().to_json()["collisions"] == [{"key": "c", "rules": [1, 2]}]
    assert made.exit_code == 2
    moved = plan([rename(a="b")], {"a": [1], "b": [1]}, {"b": [1]})
    assert rows(moved) == {"b": "b"}
    assert moved.dropped == {}
    by_source = plan([{"op": "copy", "from": "b", "to": "a"}], {"a": [1], "b": [1]}, {"a": [1], "b": [1]})
    assert by_source.report().to_json()["collisions"] == [{"key": "a", "rules": [None, 1]}]


def test_copy_spreads_over_the_keys_of_the_target() -> None:
    want = {"layers.0.n.attn.w": [1], "layers.1.n.attn.w": [1], "other.2.n.attn.w": [1], "layers.0.n.mlp.w": [1]}
    made = plan(
        [{"op": "copy", "from": "shared.{k:**}", "to": "{part}.{i}.n.{k}"}, {"op": "drop", "keys": "shared.**"}],
        {"shared.attn.w": [1]},
        want,
        {"vars": {"part": "layers"}},
    )
    assert rows(made) == {"layers.0.n.attn.w": "shared.attn.w", "layers.1.n.attn.w": "shared.attn.w"}
    assert made.dropped == {}
    assert made.diff.missing == ("other.2.n.attn.w", "layers.0.n.mlp.w")


# -- when


def test_unexpected_is_what_the_target_does_not_know_at_that_moment() -> None:
    rules = [{"op": "drop", "keys": "**", "when": "unexpected"}]
    have = {"old": [1], "x": [1]}
    assert rows(plan([rename(old="new"), *rules], have, {"new": [1]})) == {"new": "old"}
    assert rows(plan([*rules, {"op": "rename", "map": {"old": "new"}, "optional": True}], have, {"new": [1]})) == {}


def test_mismatched_is_by_shape_not_by_number_of_elements() -> None:
    have = {"fc.weight": [3, 5], "fc.bias": [5], "stem": [2], "lacking": [9]}
    want = {"fc.weight": [5, 3], "fc.bias": [5], "stem": [2, 1]}
    made = plan([{"op": "drop", "keys": "**", "when": "mismatched"}], have, want)
    assert rows(made) == {"fc.bias": "fc.bias", "lacking": "lacking"}
    assert made.steps[0].edit.selected == 2
    assert errors(made) == []


def test_mismatched_selects_nothing_where_all_fits() -> None:
    have = {"a": [1], "b": [2]}
    rules = [
        {"op": "drop", "keys": "**", "when": "mismatched"},
        {"op": "fill", "keys": "**", "value": "target"},
    ]
    made = plan(rules, have, have)
    assert made.is_complete
    assert [step.edit.selected for step in made.steps] == [0, 0]
    assert [row.rule for row in made.rows.values()] == [None, None]


def test_mismatched_looks_at_the_shape_that_earlier_rules_made() -> None:
    crop = {"op": "resize", "keys": "a", "layout": "n", "axes": ["n"], "mode": "crop"}
    assert rows(plan([crop, {"op": "drop", "keys": "a", "when": "mismatched"}], {"a": [3]}, {"a": [2]})) == {
        "a": "crop(a, [3] -> [2])"
    }


def test_a_pattern_must_match_even_where_when_would_select_nothing() -> None:
    assert errors(plan([{"op": "drop", "keys": "x", "when": "unexpected"}], {"a": [1]}, {"a": [1]})) == [
        "recipe:1: drop: 'x' matches no key (say optional: true if that is meant)"
    ]


@pytest.mark.parametrize(
    "rule",
    [
        {"op": "rename", "map": {"x": "y"}},
        {"op": "drop", "keys": "x"},
        {"op": "copy", "from": "x", "to": "y"},
        {"op": "fill", "keys": "x", "value": 0},
        {"op": "cast", "keys": "x", "dtype": "F16"},
        {"op": "resize", "keys": "x", "layout": "n", "axes": ["n"], "mode": "crop"},
    ],
)
def test_only_an_optional_rule_may_match_nothing(rule: dict[str, Any]) -> None:
    assert len(errors(plan([rule], {"a": [1]}, {"a": [1]}))) == 1
    assert plan([{**rule, "optional": True}], {"a": [1]}, {"a": [1]}).is_complete


# -- fill


def test_fill_makes_what_is_missing_with_the_targets_spec() -> None:
    want = {"a": [1], "n": spec(dtype=DType.I64), "h": spec(2, dtype=DType.BF16)}
    made = plan([{"op": "fill", "keys": "**", "value": "zeros"}], {"a": [1]}, want)
    assert rows(made) == {"a": "a", "n": "fill(0)", "h": "fill(0)"}
    assert made.rows["h"].expr.spec == spec(2, dtype=DType.BF16)
    assert made.filled == ("n", "h")


def test_fill_always_collides_with_a_key_that_is_there() -> None:
    always = {"op": "fill", "keys": "a", "value": 1, "when": "always"}
    assert len(errors(plan([always], {"a": [1]}, {"a": [1]}))) == 1
    assert rows(plan([{"op": "drop", "keys": "a"}, always], {"a": [1]}, {"a": [1]})) == {"a": "fill(1)"}


def test_keys_of_a_target_that_cannot_be_built_stay_missing_with_the_reason() -> None:
    rules = [{"op": "fill", "keys": "h.*", "value": "target"}, {"op": "fill", "keys": "z", "value": 0}]
    made = plan(rules, {"a": [1]}, {"a": [1], "h.w": [2], "z": [1]}, no_initial_values=BUILD)
    assert rows(made) == {"a": "a", "z": "fill(0)"}
    assert [(one.key, one.hint) for one in made.report().missing] == [("h.w", BUILD)]
    assert made.exit_code == 1
    assert errors(made) == []
    assert (
        len(errors(plan([{"op": "fill", "keys": "q", "value": "target"}], {}, {"a": [1]}, no_initial_values=BUILD)))
        == 1
    )


# -- what remains


def test_float_width_is_reported_and_float_against_integer_is_a_mismatch() -> None:
    have = {
        "w": spec(2, dtype=DType.BF16),
        "n": spec(dtype=DType.F32),
        "m": spec(dtype=DType.BOOL),
        "i": spec(dtype=DType.I32),
    }
    want = {"w": [2], "n": spec(dtype=DType.I64), "m": spec(dtype=DType.F32), "i": spec(dtype=DType.I64)}
    made = plan([], have, want)
    assert made.diff.matched == ("w", "i")
    assert made.diff.dtypes == ("w", "i")
    assert made.diff.mismatched == ("n", "m")
    assert plan([], {"w": have["w"]}, {"w": [2]}).exit_code == 0


def test_with_dtype_casts_floating_outputs_only() -> None:
    made = plan(
        [{"op": "cast", "keys": "a", "dtype": "F16"}],
        {"a": [1], "b": [1], "n": spec(dtype=DType.I64)},
        {
            "a": [1],
            "b": [1],
            "n": spec(dtype=DType.I64),
        },
    ).with_dtype(DType.F16)
    assert rows(made) == {"a": "cast(a, F16)", "b": "cast(b, F16)", "n": "n"}
    assert made.diff.dtypes == ("a", "b")


def test_a_missing_tied_key_is_offered_a_copy() -> None:
    want = manifest({"wte": [4, 2], "head": [4, 2], "x": [1]}, tied=(("wte", "head"),))
    made = plan([], {"wte": [4, 2], "x": [1]}, want)
    assert [(one.key, one.hint) for one in made.report().missing] == [
        ("head", "tied to 'wte', which is there: {op: copy, from: wte, to: head}")
    ]
    with pytest.raises(IncompletePlan, match="incomplete: 1 missing"):
        made.raise_for_gaps()
    copied = plan([{"op": "copy", "from": "wte", "to": "head"}], {"wte": [4, 2], "x": [1]}, want)
    assert copied.is_complete
    copied.raise_for_gaps()


@pytest.mark.parametrize(("op", "refused"), [("cast", True), ("rename", False)])
def test_only_so_many_rules_change_one_tensor(op: str, refused: bool) -> None:
    rules: list[dict[str, Any]] = (
        [{"op": "cast", "keys": "w", "dtype": dtype} for dtype in ("f64", "f32") * 60]
        if op == "cast"
        else [{"op": "rename", "map": {old: new}} for old, new in (("w", "v"), ("v", "w")) * 60]
    )
    have = manifest({"w": [2]})
    with pytest.raises(RuleError, match="'w' would be changed by more than 100 rules") if refused else nullcontext():
        assert plan(rules, have, have).is_complete
    assert plan(rules[:100], have, have).is_complete


def test_several_faults_are_raised_together() -> None:
    made = plan([{"op": "drop", "keys": ["x", "y"]}], {"a": [1]}, {"a": [1]})
    with pytest.raises(PlanErrors) as caught:
        made.raise_for_errors()
    assert caught.value.parts == made.errors


def test_a_key_is_followed_back_through_every_rule() -> None:
    made = plan(
        [
            {"op": "rename", "map": {"module.{k:**}": "{k}"}},
            rename(a="b", b="a"),
            {"op": "cast", "keys": "*", "dtype": "F16"},
        ],
        {"module.a": [1], "module.b": [2]},
        {"a": [2], "b": [1]},
    )
    assert made.trace("a") == [
        "a = cast(module.b, F16)",
        "recipe:3: cast: a from a: cast(module.b, F16)",
        "recipe:2: rename: a from b: module.b",
        "recipe:1: rename: b from module.b: module.b",
        "source: module.b F32 [2]",
    ]
    assert made.trace("nothing") == []
    filled = plan([{"op": "fill", "keys": "a", "value": 1}], {}, {"a": [1]})
    assert filled.trace("a") == ["a = fill(1)", "recipe:1: fill: a from nothing: fill(1)"]
