"""Whatever the links are, the recipe does exactly what they say, and soon."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from time import perf_counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptfix.suggest.generalise.draft import Infeasible, Reach
from ckptfix.suggest.generalise.steps import Order, lay_out
from ckptfix.suggest.generalise.task import make_task
from ckptfix.suggest.link import Link, Term
from tests.language.making import manifest
from tests.suggest.cases import Case, assert_does_as_told, one_rule_each, vit


def crossing() -> Case:
    """Tensors that a layout uses lie where renames put others, and the other way round."""
    case = Case()
    case.split("a.0", ["b.0", "b.1", "b.2"], (2, 2))
    case.rename("b.0", "a.0", (6, 2))
    case.split("c.0", ["a.1", "a.2", "c.0"], (2, 2))
    case.rename("b.1", "c.1")
    return case


@pytest.mark.parametrize("make", [vit, crossing])
@pytest.mark.parametrize("order", ["arrange first", "rename first", "rename first, then in place", "out of the way"])
@pytest.mark.parametrize("reach", ["general", "key by key"])
def test_every_order_that_is_possible_does_as_told(make: Callable[[], Case], order: Order, reach: Reach) -> None:
    case = make()
    task = make_task(case.links, manifest(case.have), manifest(case.want), [], {}, [], [])
    try:
        laid = lay_out(task, order, reach)
    except Infeasible:
        assert make is crossing and order != "out of the way"
        return
    recipe = {"ckptfix": 1, "rules": [draft.values() for draft in laid.drafts], "vars": dict(laid.tables.variables)}
    told = case.plan(one_rule_each(case))
    assert {key: row.expr for key, row in case.plan(recipe).rows.items()} == {
        key: row.expr for key, row in told.rows.items()
    }


WORDS = st.sampled_from(["norm", "attn", "mlp", "fc1", "fc2", "in_proj", "layer", "blocks", "0", "1", "head", "w"])
LEAVES = st.sampled_from([("weight",), ("weight", "bias"), ("weight", "bias", "running_mean"), ("gamma", "beta")])
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(".".join)
NUMBERINGS = st.sampled_from(
    [
        lambda i: f"{i}",
        lambda i: f"{i + 1}",
        lambda i: f"{i}.0",
        lambda i: f"{i // 2}.{i % 2}",
        lambda i: f"{2 * i}",
        lambda i: f"{(0, 0, 1, 1, 1, 2, 3, 3)[i]}.{(0, 1, 0, 1, 2, 0, 0, 1)[i]}",
        lambda i: f"{(5, 3, 0, 1, 7, 2, 4, 6)[i]}",
        lambda i: "abcdefgh"[i],
        lambda i: f"{i:02d}",
    ]
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw blocks of modules under two names and numberings; a few links of each kind; a few targets exchanged."""
    case = Case()
    pairs: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 4))):
        old, new, inner = draw(PATHS), draw(PATHS), draw(PATHS)
        count, numbered, counted = draw(st.integers(1, 8)), draw(NUMBERINGS), draw(NUMBERINGS)
        leaves = draw(LEAVES)
        other = draw(st.sampled_from([inner, draw(PATHS)]))
        for i, leaf in product(range(count), leaves):
            source, target = f"{old}.{numbered(i)}.{inner}.{leaf}", f"{new}.{counted(i)}.{other}.{leaf}"
            if source not in pairs and target not in pairs.values():
                pairs[source] = target
    sources, targets = list(pairs), list(pairs.values())
    if draw(st.booleans()):
        first, second = draw(st.tuples(*[st.integers(0, len(targets) - 1)] * 2))
        targets[first], targets[second] = targets[second], targets[first]
    kinds = draw(st.sampled_from(["rename", "split", "transpose", "mixed"]))
    for source, target in zip(sources, targets, strict=True):
        kind = kinds if kinds != "mixed" else draw(st.sampled_from(["rename", "split", "transpose", "drop", "fill"]))
        add(case, kind, source, target)
    return case


def add(case: Case, kind: str, source: str, target: str) -> None:
    parts = [f"{target}.{part}" for part in "qkv"]
    if kind == "split" and not case.want.keys() & set(parts):
        case.split(source, parts, (2, 3))
    elif kind == "transpose":
        case.have[source], case.want[target] = (2, 3), (3, 2)
        case.links.append(Link((Term.of(source),), (Term.of(target),), "o i -> i o"))
    elif kind == "drop":
        case.drop(source)
    elif kind == "fill":
        case.fill(target)
    else:
        case.rename(source, target)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_a_recipe_does_what_one_rule_for_each_link_would(case: Case) -> None:
    assert_does_as_told(case, case.written())


def test_ten_thousand_experts_take_seconds() -> None:
    case = Case()
    for i, e in product(range(40), range(84)):
        for old, new in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
            case.rename(f"layers.{i}.experts.{e}.{old}.weight", f"model.layers.{i}.mlp.experts.{e}.{new}.weight")
    start = perf_counter()
    written = case.written()
    assert perf_counter() - start < 10
    assert len(written.values["rules"][0]["map"]) == 3
    assert case.plan(written.values).is_complete
