"""Whatever the links are, the recipe does exactly what they say, and soon."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptfix.errors import KeyCollision, PatternError
from ckptfix.inference.generalise.draft import Infeasible, Reach
from ckptfix.inference.generalise.steps import Order, lay_out
from ckptfix.inference.generalise.task import make_task
from ckptfix.inference.link import Link, Term
from tests.inference.cases import QKV, Case, assert_does_as_told, one_rule_each, vit
from tests.language.making import manifest


def test_sizes_that_differ_from_layer_to_layer_are_left_to_the_shapes() -> None:
    case = Case()
    for i in range(3):
        width = 4 << i
        case.have[f"layers.{i}.qkv"] = (3 * width, 2)
        targets = [f"layers.{i}.{part}" for part in "qkv"]
        case.want |= dict.fromkeys(targets, (width, 2))
        terms = tuple(Term.of(target) for target in targets)
        sizes = dict.fromkeys("qkv", width)
        case.links.append(Link((Term.of(f"layers.{i}.qkv"),), terms, QKV, sizes))
    written = case.written()
    assert written.rules == 1
    assert case.plan(written.values).is_complete


def test_one_tensor_for_two_targets_is_copied() -> None:
    case = Case()
    case.rename("embed", "encoder.embed")
    case.rename("embed", "decoder.embed")
    plan = case.plan(case.written().values)
    assert not plan.errors
    assert {key: str(row.expr) for key, row in plan.rows.items()} == {
        "encoder.embed": "embed",
        "decoder.embed": "embed",
    }


def test_one_tensor_for_a_rename_and_a_layout_is_copied_first() -> None:
    case = Case()
    for i in range(2):
        case.rename(f"old.{i}.w", f"new.{i}.w", (4, 2))
        case.want[f"new.{i}.t"] = (2, 4)
        case.links.append(Link((Term.of(f"old.{i}.w"),), (Term.of(f"new.{i}.t"),), "o i -> i o"))
    plan = case.plan(case.written().values)
    assert plan.is_complete
    assert str(plan.rows["new.1.t"].expr) == "rearrange(old.1.w: o i -> i o)"


def test_a_table_gets_no_name_that_expressions_keep() -> None:
    case = Case()
    for i, new in enumerate((5, 3, 0, 1, 7, 2, 4, 6)):
        case.module(f"blocks.{i}", f"lambda_{new}")
    written = case.written()
    assert written.values["vars"] == {"place": [5, 3, 0, 1, 7, 2, 4, 6]}
    assert_does_as_told(case, written)


def test_a_target_that_is_made_twice_is_an_error() -> None:
    case = Case()
    case.rename("a", "c")
    case.rename("b", "c")
    with pytest.raises(KeyCollision, match="'c' of the target is made twice"):
        case.written()


def test_a_key_that_no_pattern_can_name_is_an_error() -> None:
    case = Case()
    case.rename("a.{i}", "b")
    with pytest.raises(PatternError, match="holds a brace"):
        case.written()


def test_a_source_that_is_neither_used_nor_dropped_is_in_the_way() -> None:
    case = Case(have={"b": (2, 2)})
    case.rename("a", "b")
    with pytest.raises(KeyCollision, match="'b' is in the way"):
        case.written()


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

BRANCHES = st.sampled_from(
    [[("", "")], [("", "model.")], [("text.", "a."), ("image.", "b.")], [("a.", "b."), ("", "")]]
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
        for (before, after), i, leaf in product(draw(BRANCHES), range(count), leaves):
            source = f"{before}{old}.{numbered(i)}.{inner}.{leaf}"
            target = f"{after}{new}.{counted(i)}.{other}.{leaf}"
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
    start = process_time()
    written = case.written()
    assert process_time() - start < 10
    assert len(written.values["rules"][0]["map"]) == 3
    assert case.plan(written.values).is_complete
