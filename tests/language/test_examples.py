"""Every example of every rule says exactly what the rule does."""

from __future__ import annotations

from inspect import getsourcefile
from pathlib import Path

import pytest
from msgspec.structs import replace

from ckptfix.planning.example import run_example
from ckptfix.rules import rule_types
from ckptfix.rules.base import Example

EXAMPLES = [
    pytest.param(example, id=f"{op}-{number}")
    for op, rule in rule_types().items()
    for number, example in enumerate(rule.examples, 1)
]
WORKING = [param for param in EXAMPLES if param.values[0].fails is None]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_gives_what_it_says(example: Example) -> None:
    outcome = run_example(example)
    assert outcome.agrees_with(example), f"{outcome.rows} {[str(error) for error in outcome.errors]}"


@pytest.mark.parametrize("example", WORKING)
def test_an_example_that_leaves_a_row_out_is_noticed(example: Example) -> None:
    outcome = run_example(example)
    for key in example.gives:
        short = {other: text for other, text in example.gives.items() if other != key}
        assert not outcome.agrees_with(replace(example, gives=short))
    assert not outcome.agrees_with(replace(example, gives={**example.gives, "more": "more"}))
    assert not outcome.agrees_with(replace(example, fails="matches no key"))


@pytest.mark.parametrize("op", rule_types())
def test_an_op_has_examples_and_all_of_them_run(op: str) -> None:
    rule = rule_types()[op]
    written = Path(str(getsourcefile(rule))).read_text().count(" Example(\n") + (
        Path(str(getsourcefile(rule))).read_text().count(" Example(rule=")
    )
    assert written == len(rule.examples) >= 2
    assert sum(param.id.startswith(f"{op}-") for param in EXAMPLES) == written


def test_the_ops_are_found() -> None:
    assert list(rule_types())[:5] == ["call", "cast", "copy", "drop", "fill"]
    assert {"rename", "resize"} <= rule_types().keys()
