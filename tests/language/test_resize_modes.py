"""Kernels and tables agree with timm, Swin and MAE, and both ways to compute them agree to the byte."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor
from torch.nn import functional

from ckptfix.errors import RecipeSchemaError
from ckptfix.expr import Read
from ckptfix.proof.recompute import recompute
from ckptfix.tensors import DType, TensorSpec

from .making import errors, plan, spec
from .values import compute, same_bytes, value

FLOATS = [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn]


def resized(tensor: Tensor, shape: list[int], **rule: Any) -> Tensor:
    """Resize one tensor through a recipe, by both paths."""
    dtype = DType.from_text(str(tensor.dtype))
    assert dtype
    made = plan(
        [{"op": "resize", "keys": "w", **rule}],
        {"w": TensorSpec(tuple(tensor.shape), dtype)},
        {"w": TensorSpec(tuple(shape), dtype)},
    )
    made.raise_for_errors()
    assert made.is_complete
    expr = made.rows["w"].expr
    result = compute(expr, {"w": tensor})
    assert (tuple(result.shape), result.dtype) == (expr.spec.shape, tensor.dtype)
    assert same_bytes(recompute(expr, {"w": tensor}, lambda seed: {}), result)
    return result


def refused(shape: list[int], want: list[int], dtype: DType = DType.F32, **rule: Any) -> str:
    """Give the one error that a resize ends in."""
    made = plan(
        [{"op": "resize", "keys": "w", **rule}], {"w": spec(*shape, dtype=dtype)}, {"w": spec(*want, dtype=dtype)}
    )
    [error] = errors(made)
    return error


# -- pinv

KERNEL: dict[str, Any] = {"layout": "o i h w", "axes": ["h", "w"], "mode": "pinv"}


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [((16, 16), (14, 14)), ((14, 14), (16, 16)), ((8, 8), (16, 16)), ((4, 6), (7, 5)), ((3, 3), (3, 5))],
)
def test_patch_kernels_agree_with_timm(old: tuple[int, int], new: tuple[int, int], antialias: bool) -> None:
    kernel = value(spec(5, 3, *old))
    theirs = resample_patch_embed(kernel, list(new), antialias=antialias)
    ours = resized(kernel, [5, 3, *new], **KERNEL, antialias=antialias)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_a_patch_kernel_answers_to_an_enlarged_patch_as_before() -> None:
    kernel, patch = value(spec(5, 3, 8, 8)), value(spec(1, 3, 8, 8), 1)
    larger = functional.interpolate(patch, (12, 16), mode="bicubic", antialias=True)
    ours = resized(kernel, [5, 3, 12, 16], **KERNEL, antialias=True)
    before, after = functional.conv2d(patch, kernel), functional.conv2d(larger, ours)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    plain = resized(kernel, [5, 3, 12, 16], **KERNEL | {"mode": "bicubic"}, antialias=True)
    assert (functional.conv2d(larger, plain) - before).abs().max() > 1


def test_a_folded_patch_kernel_is_resized_as_the_convolution() -> None:
    kernel = value(spec(5, 3, 4, 4))
    folded = resized(
        kernel.permute(0, 2, 3, 1).reshape(5, 48),
        [5, 108],
        layout="o (h w c)",
        axes=["h", "w"],
        sizes={"c": 3},
        mode="pinv",
    )
    whole = resized(kernel, [5, 3, 6, 6], **KERNEL)
    assert same_bytes(folded, whole.permute(0, 2, 3, 1).reshape(5, 108).contiguous())


def test_the_bytes_of_a_patch_kernel_do_not_depend_on_the_number_of_threads() -> None:
    kernel, threads = value(spec(64, 3, 16, 16)), torch.get_num_threads()
    first = resized(kernel, [64, 3, 14, 14], **KERNEL)
    torch.set_num_threads(3 if threads == 1 else 1)
    try:
        assert same_bytes(resized(kernel, [64, 3, 14, 14], **KERNEL), first)
    finally:
        torch.set_num_threads(threads)


def test_the_pseudo_inverse_is_computed_once_for_many_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    inverse = torch.linalg.pinv

    def counted(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        return inverse(*args, **options)

    monkeypatch.setattr(torch.linalg, "pinv", counted)
    for seed in range(3):
        kernel = value(spec(2, 1, 9, 7), seed)
        resized(kernel, [2, 1, 5, 11], **KERNEL)
    assert len(calls) == 2, "one for each path"


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_patch_kernel_keeps_its_dtype(dtype: torch.dtype) -> None:
    kernel = value(spec(5, 3, 4, 4)).to(dtype)
    assert same_bytes(
        resized(kernel, [5, 3, 6, 6], **KERNEL), resized(kernel.float(), [5, 3, 6, 6], **KERNEL).to(dtype)
    )


def test_a_patch_kernel_of_the_right_size_is_left_alone() -> None:
    made = plan([{"op": "resize", "keys": "w", **KERNEL}], {"w": [5, 3, 4, 4]}, {"w": [5, 3, 4, 4]})
    assert made.rows["w"].expr == Read("w", spec(5, 3, 4, 4))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"axes": ["h"]}, "pinv works along 2 axes"),
        ({"align_corners": True}, "align_corners: pinv has none"),
        ({"fill": 1}, "fill: pinv adds nothing"),
    ],
)
def test_a_resize_of_patch_kernels_that_is_written_wrong(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeSchemaError, match=message):
        plan([{"op": "resize", "keys": "w", **KERNEL, **rule}], {"w": [1, 1, 2, 2]}, {"w": [1, 1, 3, 3]})


def test_a_resize_of_patch_kernels_that_makes_no_sense() -> None:
    assert "pinv needs floating numbers, this is I64" in refused([1, 1, 2, 2], [1, 1, 3, 3], DType.I64, **KERNEL)
    assert "pinv cannot resize h from 2 to 0, w from 2 to 3" in refused([1, 1, 2, 2], [1, 1, 0, 3], **KERNEL)
    assert (
        "pinv cannot resize h from 2 to 65, w from 2 to 64 (it is for patch kernels of at most 4096 cells)"
        in refused([1, 1, 2, 2], [1, 1, 65, 64], **KERNEL)
    )


# -- geometric

TABLE: dict[str, Any] = {"layout": "(h w) n", "axes": ["h", "w"], "mode": "geometric"}


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize(("old", "new"), [(7, 12), (14, 24), (14, 16), (12, 7), (2, 9), (8, 1)])
def test_relative_position_tables_agree_with_timm(old: int, new: int, extra: int) -> None:
    table = value(spec((2 * old - 1) ** 2 + extra, 4))
    shape = [(2 * new - 1) ** 2 + extra, 4]
    theirs = resize_rel_pos_bias_table(table, (new, new), tuple(shape))
    ours = resized(table, shape, **TABLE | {"layout": "((h w) + p) n"}, sizes={"p": extra})
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)
    assert same_bytes(ours[len(ours) - extra :].clone(), table[len(table) - extra :].clone())


@pytest.mark.parametrize(("old", "new"), [((4, 7), (6, 10)), ((7, 4), (7, 9)), ((5, 3), (3, 5))])
def test_tables_of_windows_that_are_not_square_agree_with_timm(old: tuple[int, int], new: tuple[int, int]) -> None:
    sides = [2 * size - 1 for size in old]
    table = value(spec(sides[0] * sides[1], 4))
    wide = [2 * size - 1 for size in new]
    theirs = resize_rel_pos_bias_table(table, new, (wide[0] * wide[1], 4), old_window_size=old)
    ours = resized(
        table,
        [wide[0] * wide[1], 4],
        **TABLE | {"axes": {"h": wide[0], "w": wide[1]}},
        sizes={"h": sides[0]},
    )
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_table_with_heads_first_agrees_with_timm() -> None:
    table = value(spec(4, 13, 15))
    theirs = resize_rel_pos_bias_table(table, (9, 12), (4, 17, 23))
    ours = resized(table, [4, 17, 23], layout="n h w", axes=["h", "w"], mode="geometric")
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_table_grows_outwards_from_its_middle() -> None:
    table = torch.tensor([9.0, 4.0, 1.0, 0.0, 1.0, 4.0, 9.0])
    ours = resized(table, [11], layout="n", axes=["n"], mode="geometric")
    assert ours[4:7].tolist() == [1.0, 0.0, 1.0]
    torch.testing.assert_close(ours, ours.flip(0))
    assert ours[:5].tolist() == sorted(ours[:5].tolist(), reverse=True)
    assert ours[0].item() == pytest.approx(9, abs=1e-4)


def test_an_axis_that_is_not_listed_is_left_alone() -> None:
    table = value(spec(7, 5))
    ours = resized(table, [13, 5], layout="h w", axes=["h"], mode="geometric")
    columns = [resized(table[:, [row]], [13, 1], layout="h w", axes=["h"], mode="geometric") for row in range(5)]
    assert same_bytes(ours, torch.cat(columns, 1))
    assert same_bytes(ours[6].clone(), table[3].clone())


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_table_keeps_its_dtype(dtype: torch.dtype) -> None:
    table = value(spec(25, 4)).to(dtype)
    assert same_bytes(resized(table, [49, 4], **TABLE), resized(table.float(), [49, 4], **TABLE).to(dtype))


def test_a_table_of_the_right_size_is_left_alone() -> None:
    made = plan([{"op": "resize", "keys": "w", **TABLE}], {"w": [25, 4]}, {"w": [25, 4]})
    assert made.rows["w"].expr == Read("w", spec(25, 4))


@pytest.mark.parametrize(
    ("old", "new"), [((4, 5), (5, 5)), ((5, 5), (5, 6)), ((1, 5), (5, 5)), ((1025, 3), (3, 3)), ((3, 3), (3, 1025))]
)
def test_a_table_that_is_none_of_relative_positions(old: tuple[int, int], new: tuple[int, int]) -> None:
    rule = {**TABLE, "layout": "h w n"}
    assert (
        f"geometric cannot resize h from {old[0]} to {new[0]}, w from {old[1]} to {new[1]} "
        "(a window of n has 2n - 1 relative positions: an odd number, 3 to 1023)"
    ) in refused([*old, 2], [*new, 2], **rule)
    assert "geometric needs floating numbers, this is I64" in refused([3, 3, 2], [5, 5, 2], DType.I64, **rule)
    assert "geometric cannot resize h from 3 to 0, w from 3 to 3" in refused([3, 3, 2], [0, 3, 2], **rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"layout": "h w n", "axes": ["h", "w", "n"]}, "geometric works along 1 to 2 axes"),
        ({"antialias": True}, "antialias: geometric has none"),
        ({"align_corners": True}, "align_corners: geometric has none"),
        ({"fill": 1}, "fill: geometric adds nothing"),
    ],
)
def test_a_resize_of_tables_that_is_written_wrong(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeSchemaError, match=message):
        plan([{"op": "resize", "keys": "w", **TABLE, **rule}], {"w": [9, 2]}, {"w": [25, 2]})


# -- the same tables and grids by plain bicubic, for other families


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 8)])
def test_bicubic_tables_are_resized_as_swin_does(old: int, new: int) -> None:
    table = value(spec((2 * old - 1) ** 2, 4))
    side, wide = 2 * old - 1, 2 * new - 1
    image = table.T.reshape(1, 4, side, side)
    theirs = functional.interpolate(image, size=(wide, wide), mode="bicubic").reshape(4, wide * wide).T
    ours = resized(table, [wide * wide, 4], **TABLE | {"mode": "bicubic"})
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 8)])
def test_position_tables_are_resized_as_mae_does(old: int, new: int) -> None:
    table = value(spec(1, 1 + old * old, 6))
    grid = table[:, 1:].reshape(1, old, old, 6).permute(0, 3, 1, 2)
    larger = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    theirs = torch.cat([table[:, :1], larger.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    ours = resized(
        table,
        [1, 1 + new * new, 6],
        layout="1 (p + (h w)) c",
        axes=["h", "w"],
        sizes={"p": 1},
        mode="bicubic",
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
