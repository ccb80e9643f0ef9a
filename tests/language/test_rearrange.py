"""Layouts over real tensors: einops where it can say the same, plain torch for sums, and the second path everywhere."""

from __future__ import annotations

import math
from typing import Any

import einops
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ckptfix.execute.evaluate import evaluate
from ckptfix.planning import make_plan
from ckptfix.proof.recompute import recompute
from ckptfix.recipe import load_recipe
from ckptfix.tensors import DType, Manifest, TensorSpec

from .values import check_moved


def apply(rule: dict[str, Any], have: dict[str, Tensor], want: dict[str, list[int]] | None = None) -> dict[str, Tensor]:
    """Run one rule over tensors, by both paths; raise the first fault."""
    specs = Manifest({key: TensorSpec(tuple(value.shape), DType.F32) for key, value in have.items()})
    target = Manifest({key: TensorSpec(tuple(shape), DType.F32) for key, shape in (want or {}).items()})
    plan = make_plan(load_recipe({"ckptfix": 1, "rules": [{"op": "rearrange", **rule}]}), specs, target)
    plan.raise_for_errors()
    made: dict[str, Tensor] = {}
    for key, row in plan.rows.items():
        made[key] = evaluate(row.expr, have.__getitem__, lambda seed: {})
        assert tuple(made[key].shape) == row.expr.spec.shape
        assert torch.equal(made[key], recompute(row.expr, have, lambda seed: {}))
        assert check_moved(row.expr, have, made[key])
    return made


def numbers(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)


@st.composite
def einops_patterns(draw: st.DrawFn) -> tuple[str, list[int], dict[str, int]]:
    """Draw a pattern that both languages know, a shape for it, and the sizes that it needs."""
    names = list("abcdef")[: draw(st.integers(1, 6))]
    sizes = {name: draw(st.integers(1, 4)) for name in names}

    def fold(order: list[str]) -> tuple[str, list[int]]:
        text, shape, rest = [], [], list(order)
        while rest:
            count = draw(st.integers(1, min(3, len(rest))))
            part, rest = rest[:count], rest[count:]
            text.append(part[0] if count == 1 else f"({' '.join(part)})")
            shape.append(math.prod(sizes[name] for name in part))
            if draw(st.integers(0, 5)) == 0:
                text.append("1")
                shape.append(1)
        return " ".join(text), shape

    left, shape = fold(names)
    order = draw(st.permutations(names))
    repeat = draw(st.booleans())
    right, _ = fold([*order, "r"] if repeat and sizes.setdefault("r", draw(st.integers(1, 3))) else list(order))
    return f"{left} -> {right}", shape, sizes


@given(einops_patterns())
@settings(max_examples=300, deadline=None)
def test_what_einops_can_say_means_the_same(drawn: tuple[str, list[int], dict[str, int]]) -> None:
    layout, shape, sizes = drawn
    tensor = numbers(*shape)
    made = apply({"keys": "w", "layout": layout, "sizes": sizes}, {"w": tensor})["w"]
    reference = einops.repeat(tensor, layout, **sizes) if "r" in sizes else einops.rearrange(tensor, layout, **sizes)
    assert torch.equal(made, reference)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_sum_is_parts_laid_end_to_end(parts: list[int], rest: int, outer: int, inner: int) -> None:
    names = list("pqst")[: len(parts)]
    tensors = [numbers(outer, size, inner, *([2] * rest)) + 1000 * n for n, size in enumerate(parts)]
    fused = torch.cat(tensors, 1).flatten(0, 2)
    layout = f"(g ({'+'.join(names)}) d) ... -> " + ", ".join(f"(g {name} d) ..." for name in names)
    sizes = {"g": outer, "d": inner, **dict(zip(names[1:], parts[1:], strict=True))}
    split = apply({"from": "w", "to": names, "layout": layout, "sizes": sizes}, {"w": fused})
    for name, tensor in zip(names, tensors, strict=True):
        assert torch.equal(split[name], tensor.flatten(0, 2))
    left, right = layout.split(" -> ")
    back = apply({"from": names, "to": "w", "layout": f"{right} -> {left}", "sizes": sizes}, split)
    assert torch.equal(back["w"], fused)


def test_equal_parts_only_where_the_target_says_nothing() -> None:
    rule = {"from": "w", "to": ["q", "k", "v"], "layout": "(q+k+v) i -> q i, k i, v i"}
    w = numbers(12, 2)
    assert [tuple(apply(rule, {"w": w})[key].shape) for key in "qkv"] == [(4, 2)] * 3
    want = {"q": [8, 2], "k": [2, 2]}
    grouped = apply(rule, {"w": w}, want)
    assert torch.equal(grouped["k"], w[8:10]) and torch.equal(grouped["v"], w[10:])


def test_halves_are_swapped() -> None:
    w = numbers(6, 2)
    made = apply({"keys": "w", "layout": "(a+b) ... -> (b+a) ..."}, {"w": w})["w"]
    assert torch.equal(made, torch.cat([w[3:], w[:3]]))


def test_rotary_order() -> None:
    w = numbers(2 * 8, 3)
    rule = {"keys": "w", "layout": "(h two d) ... -> (h d two) ...", "sizes": {"two": 2, "h": 2}}
    reference = w.view(2, 2, 4, 3).transpose(1, 2).reshape(16, 3)  # the permutation of transformers' Llama converter
    assert torch.equal(apply(rule, {"w": w})["w"], reference)


def test_stacking_counts_in_numeric_order() -> None:
    have = {f"e.{n}.w": numbers(3, 2) + 100 * n for n in (10, 9, 0, 2, 1, 3, 4, 5, 8, 7, 6)}
    made = apply({"from": "e.{e}.w", "to": "w", "layout": "e o i -> e i o"}, have)["w"]
    assert torch.equal(made, torch.stack([have[f"e.{n}.w"].T for n in range(11)]))


def test_listed_texts_stack_as_listed() -> None:
    have = {"v": numbers(2, 3), "q": numbers(2, 3) + 10, "k": numbers(2, 3) + 20}
    made = apply({"from": "{l:q|k|v}", "to": "qkv", "layout": "l o i -> (l o) i"}, have)["qkv"]
    assert torch.equal(made, torch.cat([have["q"], have["k"], have["v"]]))


def test_experts_fuse_and_fall_apart_again() -> None:
    have = {f"{n}.w{k}": numbers(3, 2) + 100 * n + 10 * k for n in range(4) for k in (1, 3)}
    fuse = {"from": ["{e}.w1", "{e}.w3"], "to": "gate_up", "layout": "e g c, e u c -> e (g+u) c"}
    fused = apply(fuse, have)
    reference = torch.stack([torch.cat([have[f"{n}.w1"], have[f"{n}.w3"]]) for n in range(4)])
    assert torch.equal(fused["gate_up"], reference)
    split = {"from": "gate_up", "to": ["{e}.w1", "{e}.w3"], "layout": "e (g+u) c -> e g c, e u c"}
    assert all(torch.equal(tensor, have[key]) for key, tensor in apply(split, fused).items())


@pytest.mark.parametrize(
    ("rule", "have", "message"),
    [
        ({"keys": "w", "layout": "a b"}, {"w": [2, 3]}, "has 0 arrows"),
        ({"keys": "w", "layout": "a b -> a"}, {"w": [2, 3]}, "the part (a b) goes nowhere"),
        ({"keys": "w", "layout": "a -> a, a"}, {"w": [2]}, "the part (a) stands twice on the right"),
        ({"keys": "w", "layout": "a 2 -> a"}, {"w": [2, 2]}, "the axis 2 has no name"),
        ({"keys": "w", "layout": "a b -> b a"}, {"w": [2, 3, 4]}, "'a b' has 2 axes, the tensor has 3"),
        ({"keys": "w", "layout": "a -> (g a)"}, {"w": [2]}, "give it: sizes: {g: ...}"),
        (
            {"keys": "w", "layout": "(a+b) -> (b+a)", "sizes": {"a": 9}},
            {"w": [4]},
            "without b, (a + b) is 9; the tensor has 4 there (given a = 9; correct sizes or the layout)",
        ),
        ({"from": "w", "to": ["a", "b"], "layout": "x -> x"}, {"w": [4]}, "from and to have 1 and 2"),
        ({"keys": "w", "to": "x", "layout": "x -> x"}, {"w": [4]}, "give either keys, or from and to"),
        ({"from": "e.{e}", "to": "w", "layout": "a -> a"}, {"e.0": [4]}, "{e} of 'e.{e}' stands on one side only"),
        ({"from": "w", "to": "e.{e}", "layout": "a -> a"}, {"w": [4]}, "{e} of 'e.{e}' stands on one side only"),
        (
            {"from": "{l:q|k|v}", "to": "w", "layout": "l a -> l a"},
            {"q": [4], "v": [4]},
            "incomplete group: along 'l' there are q, v, and no k (drop the keys without partners first",
        ),
        (
            {"from": ["{i}.q", "{i}.k"], "to": "{i}.qk", "layout": "q, k -> (q+k)"},
            {"0.q": [2], "0.k": [2], "1.q": [2]},
            "'{i}.k' has no partner for '1.q' (nearest to '1.k': 0.k, 1.q; drop",
        ),
        (
            {"from": "{e}.*.w", "to": "w", "layout": "e a -> e a"},
            {"0.a.w": [4], "0.b.w": [4]},
            "'{e}.*.w' has 2 keys, its placeholders tell 1 apart (name its wildcards: {x} for *)",
        ),
        (
            {"from": ["a", "b"], "to": "c", "layout": "x i, y i -> (x+y) i"},
            {"a": [2, 3], "b": [2, 4]},
            "'i' is 3, the tensor has 4 there (correct the layout)",
        ),
    ],
)
def test_a_wrong_layout_says_what_is_wrong(rule: dict[str, Any], have: dict[str, list[int]], message: str) -> None:
    from ckptfix.errors import CkptfixError

    with pytest.raises(CkptfixError) as caught:
        apply(rule, {key: numbers(*shape) for key, shape in have.items()})
    assert message in str(caught.value)
