"""Plans of many keys: the cost grows with the keys, and a mixture of experts is planned in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ckptfix.planning import Plan
from ckptfix.planning.invert import invert_plan

from .making import manifest, plan

RULES = 50
SECONDS = 3.0
"""CPU of 20,000 keys under 50 rules: three times what a slow machine takes."""


def cpu(action: Callable[[], object]) -> float:
    """Measure the least of two runs, in seconds of this process."""
    least = float("inf")
    for _ in range(2):
        begun = time.process_time()
        action()
        least = min(least, time.process_time() - begun)
    return least


def renamed(keys: int, rules: int = RULES) -> Plan:
    """Plan the renaming of so many keys of as many kinds by one rule for each kind."""
    have = manifest({f"layers.{n}.part{kind}.weight": [2] for n in range(keys // rules) for kind in range(rules)})
    want = manifest({f"blocks.{n}.p{kind}.w": [2] for n in range(keys // rules) for kind in range(rules)})
    written: list[dict[str, Any]] = [
        {"op": "rename", "map": {f"layers.{{n}}.part{kind}.weight": f"blocks.{{n}}.p{kind}.w"}} for kind in range(rules)
    ]
    return plan(written, have, want)


def test_the_cost_grows_with_the_keys_alone() -> None:
    few, many = (cpu(lambda keys=keys: renamed(keys)) for keys in (4_000, 20_000))  # type: ignore[misc]
    assert renamed(4_000).is_complete
    assert many < SECONDS
    assert many < 3 * 5 * few


def test_experts_are_stacked_and_taken_apart_in_seconds() -> None:
    layers, experts, weights = 50, 128, ("w1", "w2", "w3")
    apart = manifest({f"{n}.e.{e}.{w}": [2, 4] for n in range(layers) for e in range(experts) for w in weights})
    stacked = manifest({f"{n}.{w}": [experts, 2, 4] for n in range(layers) for w in weights})
    rule = {"op": "rearrange", "from": "{n}.e.{e}.{w}", "to": "{n}.{w}", "layout": "e o i -> e o i"}
    begun = time.process_time()
    there = plan([rule], apart, stacked)
    back = plan(invert_plan(there).to_values()["rules"], stacked, apart)  # type: ignore[arg-type]
    assert there.is_complete
    assert back.is_complete
    assert back.report().tensors == 1
    assert time.process_time() - begun < 15


def test_a_new_name_for_every_key_takes_as_long_as_there_are_keys() -> None:
    def pairs(keys: int) -> Plan:
        pairs = {f"layers.{n}.weight": f"blocks.{n}.w" for n in range(keys)}
        shapes = ({key: [2] for key in side} for side in (pairs.keys(), pairs.values()))
        return plan([{"op": "rename", "map": pairs}], *shapes)

    few, many = (cpu(lambda keys=keys: pairs(keys)) for keys in (4_000, 20_000))  # type: ignore[misc]
    assert pairs(4_000).is_complete
    assert many < 3 * 5 * few


def test_many_rules_take_little_more_than_few() -> None:
    few, many = (cpu(lambda rules=rules: renamed(20_000, rules)) for rules in (5, 200))  # type: ignore[misc]
    assert many < 8 * few
