"""Prefixes of the source, and variables."""

from __future__ import annotations

import pytest

from ckptfix.errors import UnknownVariable
from ckptfix.keys import VarValue

from .making import errors, plan, rows


def test_prefixes_come_off_in_order_before_the_rules() -> None:
    made = plan(
        [{"op": "rename", "map": {"a": "b"}}],
        {"_orig_mod.module.a": [1], "module.c": [1], "d": [1]},
        {"b": [1], "c": [1], "d": [1]},
        {"source": {"strip": ["_orig_mod.", "module."]}},
    )
    assert rows(made) == {"c": "module.c", "d": "d", "b": "_orig_mod.module.a"}
    assert made.rows["c"].rule is None
    wrong = plan([], {"_orig_mod.module.a": [1]}, {}, {"source": {"strip": ["module.", "_orig_mod."]}})
    assert rows(wrong) == {"module.a": "_orig_mod.module.a"}
    assert errors(wrong) == ["recipe: source: no key has the prefix 'module.' (nearest: _orig_mod.module.a)"]


def test_a_prefix_whose_removal_merges_two_keys_is_an_error() -> None:
    made = plan("ckptfix: 1\n\nsource: {strip: [module.]}\n", {"module.a": [1], "a": [1]}, {"a": [1]})
    assert errors(made) == ["recipe:3: source: without 'module.' both 'a' and 'module.a' are 'a'"]


# -- variables


@pytest.mark.parametrize(
    ("variables", "overrides", "config", "key"),
    [
        ({"s": ["x", "y"]}, {}, {}, "y"),
        ({"s": {"1": "m"}}, {}, {}, "m"),
        ({"s": ["x", "y"]}, {"s": ["p", "q"]}, {}, "q"),
        ({}, {"s": ["p", "q"]}, {}, "q"),
        ({"s": "target.config.names"}, {}, {"names": ["p", "q"]}, "q"),
        ({"s": "target.config.names"}, {}, {"names": {0: "zero", 1: "one"}}, "one"),
        ({"s": "target.config.names"}, {"s": ["a", "b"]}, {}, "b"),
        ({}, {"s": "target.config.names"}, {"names": ("p", "q")}, "q"),
    ],
)
def test_variables(variables: object, overrides: dict[str, VarValue], config: dict[str, object], key: str) -> None:
    made = plan(
        [{"op": "rename", "map": {"a.{i}": "{s[i]}"}}],
        {"a.1": [1]},
        {key: [1]},
        {"vars": variables},
        variables=overrides,
        config=config,
    )
    assert errors(made) == []
    assert rows(made) == {key: "a.1"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the target's config has no 'heads' (give --var n=...; the config has nothing)"),
        ({"layers": 2}, "the target's config has no 'heads' (give --var n=...; the config has layers)"),
        ({"heads": 0.5}, "0.5 is no integer, text, list or map (give --var n=...; the config has heads)"),
    ],
)
def test_an_undefined_variable_is_exit_2(config: dict[str, object], message: str) -> None:
    made = plan("ckptfix: 1\n\nvars: {n: target.config.heads}\n", {"a": [1]}, {"a": [1]}, config=config)
    assert errors(made) == [f"recipe:3: vars: 'n': {message}"]
    assert isinstance(made.errors[0], UnknownVariable)
    assert made.exit_code == 2


def test_sizes_and_extents_may_be_variables() -> None:
    rule = {
        "op": "resize",
        "keys": "a",
        "layout": "(p + n)",
        "axes": {"n": "big"},
        "sizes": {"p": "pre"},
        "mode": "pad",
    }
    made = plan([rule], {"a": [5]}, {"a": [9]}, {"vars": {"big": 7, "pre": 2}})
    assert rows(made) == {"a": "pad(a, [5] -> [9], 0.0)"}
    assert "'big' is 'x', not an extent" in errors(plan([rule], {"a": [5]}, {}, {"vars": {"big": "x", "pre": 2}}))[0]
