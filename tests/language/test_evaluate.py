"""The values of expressions: what is planned is what is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ckptfix.errors import RuleError, TargetBuildError
from ckptfix.execute.evaluate import evaluate, from_bytes, to_bytes, torch_dtype
from ckptfix.expr import Compute, Constant, Expr, Initial, Read
from ckptfix.layout import extent, parse_tensor
from ckptfix.tensors import DType, TensorSpec

from .making import plan, spec
from .values import compute, same_bytes, value

LAYOUTS = {
    "a": "a",
    "a b": "ab",
    "(p + a) b": "pab",
    "1 (p + (h w)) c": "phwc",
    "(h w) 1 c": "hwc",
    "c (p + h) w": "cphw",
    "(p + h + q) c": "phqc",
    "a (b (h w))": "abhw",
    "c h w": "chw",
    "a b c h": "abch",
}
SIZED = st.sampled_from([DType.F32, DType.BF16, DType.F16, DType.F64, DType.I64, DType.F8_E4M3, DType.BOOL])


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[dict[str, Any]], TensorSpec]:
    """Draw one tensor and up to three rules on it."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    names = list(LAYOUTS[layout])
    sizes = {name: draw(st.integers(0, 4)) for name in names}
    first = TensorSpec(_shape(layout, sizes), draw(SIZED))
    rules: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            rules.append({"op": "cast", "keys": "w", "dtype": draw(st.sampled_from(["F32", "BF16", "F64"]))})
            continue
        modes = ["crop", "pad", "linear", "nearest", *(["bilinear", "bicubic"] if len(names) > 1 else [])]
        mode = draw(st.sampled_from(modes))
        count = {"linear": 1, "bilinear": 2, "bicubic": 2}.get(mode, draw(st.integers(1, 3)))
        listed = draw(st.permutations(names))[:count]
        rule: dict[str, Any] = {"op": "resize", "keys": "w", "layout": layout, "mode": mode}
        new = {name: draw(st.integers(0, 6)) for name in listed}
        rules.append({**rule, "axes": new, "sizes": dict(sizes)})
        if mode == "pad":
            rules[-1]["fill"] = draw(
                st.sampled_from([0, 1, 2.5, "mean", "target"] if count == 1 else [0, 2.5, "target"])
            )
        sizes |= new
    return rules, first


def _shape(layout: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(extent(axis, sizes) or 0 for axis in parse_tensor(layout))


@settings(max_examples=400)
@given(chains())
def test_what_is_planned_is_what_is_computed(case: tuple[list[dict[str, Any]], TensorSpec]) -> None:
    rules, first = case
    final = plan([{**rule, "fill": 0} if "fill" in rule else rule for rule in rules], {"w": first}, {"w": first})
    want = final.rows["w"].expr.spec
    made = plan(rules, {"w": first}, {"w": want})
    expr = made.rows["w"].expr
    for each in (expr, *_below(expr)):
        result = compute(each, {"w": value(first)}, {"w": value(want, 1)})
        assert tuple(result.shape) == each.spec.shape
        assert result.dtype == torch_dtype(each.spec.dtype)


def _below(expr: Expr) -> list[Expr]:
    source = getattr(expr, "source", None)
    return [] if source is None else [source, *_below(source)]


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.torch_name and dtype.bits >= 8])
@pytest.mark.parametrize("number", [0, 1, -1, 0.5, 300, 1e5, 1 << 63, 1e39, float("inf"), float("nan")])
def test_a_number_that_fits_a_dtype_can_be_filled_in(dtype: DType, number: float) -> None:
    holds = dtype.can_hold(number)
    if holds:
        made = compute(Constant(TensorSpec((2,), dtype), number), {})
        assert made.dtype == torch_dtype(dtype)
        back = made.to(torch.float64) if dtype.kind != "complex" else made.real.to(torch.float64)
        torch.testing.assert_close(
            back,
            torch.full((2,), number, dtype=torch.float64),
            rtol=0.5 if dtype is DType.F8_E8M0 else 0.07,
            atol=1e-6,
            equal_nan=True,
        )
    if dtype.kind in ("int", "bool"):
        assert holds == (_survives(dtype, number) and not (dtype.startswith("U") and number < 0))


def _survives(dtype: DType, number: float) -> bool:
    try:
        return bool(torch.full((), number, dtype=torch_dtype(dtype)).item() == number)
    except (RuntimeError, OverflowError):
        return False


def test_normal_numbers_depend_on_key_and_seed_alone() -> None:
    def filled(want: dict[str, Any], **rule: Any) -> dict[str, Tensor]:
        made = plan([{"op": "fill", "keys": "**", "value": "normal", **rule}], {}, want)
        return {key: compute(row.expr, {}) for key, row in made.rows.items()}

    alone = filled({"b": [64, 64]})["b"]
    assert same_bytes(alone, filled({"a": [3], "b": [64, 64], "c": [9]})["b"])
    torch.manual_seed(5)
    assert same_bytes(alone, filled({"b": [64, 64]})["b"])
    assert not same_bytes(alone, filled({"b": [64, 64]}, seed=1)["b"])
    assert not same_bytes(alone, filled({"c": [64, 64]})["c"])
    assert abs(alone.std().item() - 0.02) < 0.001
    assert abs(filled({"b": [64, 64]}, std=2)["b"].std().item() - 2) < 0.1
    assert filled({"b": spec(2, dtype=DType.BF16)})["b"].dtype == torch.bfloat16


def test_initial_values_are_the_targets_own() -> None:
    expr = Initial(spec(2), "w", 3)
    seeds: list[int] = []

    def initial(seed: int) -> dict[str, Tensor]:
        seeds.append(seed)
        return {"w": torch.tensor([1.0, 2.0])}

    assert torch.equal(evaluate(expr, {}.__getitem__, initial), torch.tensor([1.0, 2.0]))
    assert seeds == [3]
    for wrong in ({}, {"w": torch.ones(3)}, {"w": torch.ones(2, device="meta")}):
        with pytest.raises(TargetBuildError, match="'w' should be"):
            compute(expr, {}, wrong)


def test_a_function_of_an_op_is_held_to_its_plan() -> None:
    parts = (Read("a", spec(2)), Read("b", spec(2)))
    tensors = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    assert torch.equal(compute(Compute(parts, spec(2), torch.add, "add"), tensors), torch.tensor([4.0, 6.0]))
    wrong: list[Any] = [lambda a, b: torch.cat([a, b]), lambda a, b: (a + b).double(), lambda a, b: 5]
    for function in wrong:
        with pytest.raises(RuleError, match=r"add planned F32 \[2\] and made"):
            compute(Compute(parts, spec(2), function, "add"), tensors)


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.torch_name and dtype.bits >= 8])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3)])
def test_bytes_become_a_tensor_and_bytes_again(dtype: DType, shape: tuple[int, ...]) -> None:
    made = TensorSpec(shape, dtype)
    data = bytearray(number % 2 for number in range(made.nbytes))
    tensor = from_bytes(data, made)
    assert tuple(tensor.shape) == shape
    assert bytes(to_bytes(tensor)) == bytes(data)


def test_a_dtype_that_torch_lacks_is_refused() -> None:
    with pytest.raises(RuleError, match="F6_E2M3"):
        torch_dtype(DType.F6_E2M3)
