"""Resizes agree with slicing, with torch, and with the libraries that people use."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional
from torchvision.models.vision_transformer import interpolate_embeddings

from ckptfix.expr import Read
from ckptfix.proof.recompute import recompute
from ckptfix.tensors import DType, TensorSpec

from .making import plan, spec
from .values import compute, same_bytes, value


def resized(tensor: Tensor, shape: list[int], initial: Tensor | None = None, **rule: Any) -> Tensor:
    """Resize one tensor through a recipe."""
    dtype = DType.from_text(str(tensor.dtype))
    assert dtype
    made = plan(
        [{"op": "resize", "keys": "w", **rule}],
        {"w": TensorSpec(tuple(tensor.shape), dtype)},
        {"w": TensorSpec(tuple(shape), dtype)},
    )
    made.raise_for_errors()
    assert made.is_complete
    expr, values = made.rows["w"].expr, {} if initial is None else {"w": initial}
    result = compute(expr, {"w": tensor}, values)
    assert same_bytes(recompute(expr, {"w": tensor}, lambda seed: values), result)
    return result


# -- interpolation against the libraries


def grid(height: int, width: int, channels: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(height * width, channels, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(("antialias", "align_corners"), [(False, False), (True, False), (False, True)])
def test_a_grid_is_interpolated_as_torch_does(mode: str, antialias: bool, align_corners: bool) -> None:
    if mode == "nearest":
        antialias = align_corners = False
    table = grid(4, 6)
    options: dict[str, Any] = {} if mode == "nearest" else {"antialias": antialias, "align_corners": align_corners}
    image = table.reshape(1, 4, 6, 5).permute(0, 3, 1, 2)
    for height, width in ((8, 3), (2, 9), (4, 5)):
        by_hand = functional.interpolate(image, size=(height, width), mode=mode, **options)
        ours = resized(
            table,
            [height * width, 5],
            layout="(h w) c",
            axes={"h": height, "w": width},
            sizes={"h": 4},
            mode=mode,
            **options,
        )
        assert torch.equal(ours, by_hand.permute(0, 2, 3, 1).reshape(-1, 5))
        turned = resized(
            table,
            [height * width, 5],
            layout="(h w) c",
            axes={"w": width, "h": height},
            sizes={"h": 4},
            mode=mode,
            **options,
        )
        torch.testing.assert_close(turned, ours)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_line_is_interpolated_as_torch_does(align_corners: bool) -> None:
    table = grid(7, 1)
    by_hand = functional.interpolate(table.T[None], size=12, mode="linear", align_corners=align_corners)[0].T
    ours = resized(table, [12, 5], layout="n c", axes=["n"], mode="linear", align_corners=align_corners)
    assert torch.equal(ours, by_hand)


def test_nearest_works_along_three_axes() -> None:
    block = value(spec(2, 3, 4))
    ours = resized(block, [4, 2, 7], layout="a b c", axes=["a", "b", "c"], mode="nearest")
    assert torch.equal(ours, functional.interpolate(block[None, None], size=(4, 2, 7), mode="nearest")[0, 0])


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), [(4, 7), (7, 4)])
def test_position_tables_agree_with_timm(prefix: int, antialias: bool, old: int, new: int) -> None:
    table = value(spec(1, prefix + old * old, 6))
    theirs = resample_abs_pos_embed(
        table, [new, new], num_prefix_tokens=prefix, interpolation="bicubic", antialias=antialias
    )
    ours = resized(
        table,
        [1, prefix + new * new, 6],
        layout="1 (p + (h w)) c",
        axes=["h", "w"],
        sizes={"p": prefix},
        mode="bicubic",
        antialias=antialias,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert same_bytes(ours[:, :prefix].clone(), table[:, :prefix].clone())


def test_position_tables_agree_with_torchvision() -> None:
    key = "encoder.pos_embedding"
    table = value(spec(1, 1 + 16, 6))
    theirs = interpolate_embeddings(28, 4, OrderedDict({key: table.clone()}), interpolation_mode="bicubic")[key]
    ours = resized(
        table,
        [1, 50, 6],
        layout="1 (p + (h w)) c",
        axes=["h", "w"],
        sizes={"p": 1},
        mode="bicubic",
        align_corners=True,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert same_bytes(ours[:, :1].clone(), table[:, :1].clone())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_interpolation_runs_in_float32_and_gives_the_dtype_back(dtype: torch.dtype) -> None:
    table = grid(4, 4, dtype=dtype)
    ours = resized(table, [36, 5], layout="(h w) c", axes=["h", "w"], mode="bicubic")
    exact = resized(table.float(), [36, 5], layout="(h w) c", axes=["h", "w"], mode="bicubic")
    assert same_bytes(ours, exact.to(dtype))


@pytest.mark.parametrize("mode", ["bicubic", "nearest", "crop", "pad"])
def test_unchanged_extents_leave_the_expression_alone(mode: str) -> None:
    rule = {
        "op": "resize",
        "keys": "w",
        "layout": "1 (p + (h w)) c",
        "axes": ["h", "w"],
        "sizes": {"p": 1},
        "mode": mode,
    }
    made = plan([rule], {"w": [1, 17, 2]}, {"w": [1, 17, 2]})
    assert made.rows["w"].expr == Read("w", spec(1, 17, 2))
    assert made.rows["w"].rule is None
    assert made.steps[0].edit.selected == 0


# -- crop and pad against slicing


def test_crop_keeps_the_leading_part_of_the_named_axes() -> None:
    table = value(spec(2, 9, 3))
    assert same_bytes(resized(table, [2, 4, 3], layout="a n c", axes=["n"], mode="crop"), table[:, :4].contiguous())
    both = resized(table, [1, 4, 3], layout="a n c", axes=["a", "n"], mode="crop")
    assert same_bytes(both, table[:1, :4].contiguous())
    part = resized(table, [2, 6, 3], layout="a (p + n + q) c", axes=["n"], sizes={"p": 2, "q": 3}, mode="crop")
    assert same_bytes(part, torch.cat([table[:, :3], table[:, 6:]], 1))
    folded = resized(table, [2, 6, 3], layout="a (g n) c", axes=["n"], sizes={"g": 3}, mode="crop")
    assert same_bytes(folded, table.reshape(2, 3, 3, 3)[:, :, :2].reshape(2, 6, 3))


def test_a_part_without_elements_keeps_the_rows_around_it() -> None:
    assert resized(value(spec(9, 0)), [6, 0], layout="(p + n) c", axes=["n"], sizes={"p": 2}, mode="crop").shape == (
        6,
        0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_pad_adds_a_number_after_the_present_rows(dtype: torch.dtype) -> None:
    table = (value(spec(4, 3)) * 9).to(dtype)
    ours = resized(table, [6, 3], layout="n c", axes=["n"], mode="pad", fill=7)
    assert same_bytes(ours, torch.cat([table, torch.full((2, 3), 7, dtype=dtype)]))
    assert same_bytes(
        resized(table, [5, 5], layout="n c", axes=["n", "c"], mode="pad"), functional.pad(table, (0, 2, 0, 1))
    )
    inside = resized(table, [6, 3], layout="(p + n) c", axes=["n"], sizes={"n": 1}, mode="pad")
    assert same_bytes(inside, torch.cat([table, torch.zeros(2, 3, dtype=dtype)]))


def test_pad_with_the_mean_of_the_present_rows() -> None:
    table = value(spec(4, 3, dtype=DType.BF16))
    ours = resized(table, [6, 3], layout="n c", axes=["n"], mode="pad", fill="mean")
    mean = table.float().mean(0, keepdim=True).to(torch.bfloat16)
    assert same_bytes(ours, torch.cat([table, mean, mean]))


def test_pad_with_the_targets_own_rows() -> None:
    table, target = value(spec(5, 3)), value(spec(8, 3), 1)
    ours = resized(table, [8, 3], initial=target, layout="n c", axes=["n"], mode="pad", fill="target")
    assert same_bytes(ours, torch.cat([table, target[5:]]))
    part = resized(
        table,
        [8, 3],
        initial=target,
        layout="(p + n + q) c",
        axes=["n"],
        sizes={"p": 1, "q": 2},
        mode="pad",
        fill="target",
    )
    assert same_bytes(part, torch.cat([table[:3], target[3:6], table[3:]]))


@pytest.mark.parametrize(
    ("shape", "want", "rule", "message"),
    [
        ([4, 3], [6, 3], {"layout": "n c", "axes": ["n"], "mode": "crop"}, "crop cannot grow n from 4 to 6"),
        ([4, 3], [2, 3], {"layout": "n c", "axes": ["n"], "mode": "pad"}, "pad cannot shrink n from 4 to 2"),
        ([4, 3], [0, 3], {"layout": "n c", "axes": ["n"], "mode": "linear"}, "linear cannot resize n from 4 to 0"),
        ([0, 3], [2, 3], {"layout": "n c", "axes": ["n"], "mode": "pad", "fill": "mean"}, "no mean of no rows: [0, 3]"),
        (
            [4, 3],
            [4, 6],
            {"layout": "n c", "axes": ["n"], "mode": "linear"},
            "in the target [4, 6]: 'c' is 3, the tensor has 6 there (axes lists every axis that changes)",
        ),
        ([4, 3], [4], {"layout": "n c", "axes": ["n"], "mode": "crop"}, "the target has [4] there, 'n c' has 2 axes"),
        ([4], [2], {"layout": "n c", "axes": ["n"], "mode": "crop"}, "'n c' has 2 axes, the tensor has 1"),
        ([12, 3], [16, 3], {"layout": "(h w) c", "axes": ["h", "w"], "mode": "bicubic"}, "12 is not a square"),
        (
            [16, 3],
            [12, 3],
            {"layout": "(h w) c", "axes": ["h", "w"], "mode": "bicubic"},
            "12 is not a square, so h and w are unknown (give the new extents: axes: {h: ..., w: ...})",
        ),
        (
            [6, 4],
            [6, 4],
            {"layout": "(p + n) c", "axes": {"n": 2, "c": 2}, "sizes": {"p": 1}, "mode": "crop"},
            "no axis",
        ),
        (
            [6],
            [6],
            {"layout": "(p + q)", "axes": {"p": 2, "q": 2}, "sizes": {"p": 1}, "mode": "crop"},
            "two parts change",
        ),
        (
            [6, 6],
            [6, 6],
            {"layout": "(p + q) (r + s)", "axes": {"p": 2, "r": 2}, "sizes": {"p": 3, "r": 3}, "mode": "crop"},
            "lie in two sums",
        ),
        (
            [12],
            [12],
            {"layout": "((p + q) d)", "axes": {"q": 2}, "sizes": {"p": 3, "d": 3}, "mode": "pad"},
            "a sum inside a product cannot be resized",
        ),
    ],
)
def test_a_resize_that_makes_no_sense_is_refused_before_anything_is_read(
    shape: list[int], want: list[int], rule: dict[str, Any], message: str
) -> None:
    made = plan([{"op": "resize", "keys": "w", **rule}], {"w": shape}, {"w": want})
    assert len(made.errors) == 1
    assert message in str(made.errors[0])


@pytest.mark.parametrize(
    ("dtype", "rule", "message"),
    [
        (DType.I64, {"mode": "linear"}, "linear needs floating numbers, this is I64"),
        (DType.I64, {"mode": "pad", "fill": "mean"}, "the mean needs floating numbers, this is I64"),
        (DType.I64, {"mode": "pad", "fill": 0.5}, "I64 cannot hold 0.5"),
        (DType.U8, {"mode": "pad", "fill": -1}, "U8 cannot hold -1"),
        (DType.F16, {"mode": "pad", "fill": 1e5}, "F16 cannot hold 100000"),
    ],
)
def test_a_resize_is_refused_for_a_dtype_that_cannot_hold_it(dtype: DType, rule: dict[str, Any], message: str) -> None:
    made = plan(
        [{"op": "resize", "keys": "w", "layout": "n", "axes": ["n"], **rule}],
        {"w": spec(2, dtype=dtype)},
        {"w": spec(4, dtype=dtype)},
    )
    assert message in str(made.errors[0])
