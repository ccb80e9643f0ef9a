"""Input channels are adapted as timm does, and both ways to compute them agree to the byte."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models._manipulate import adapt_input_conv
from torch.nn import functional

from ckptfix.errors import RecipeSchemaError
from ckptfix.expr import Read
from ckptfix.tensors import DType

from .making import plan, spec
from .test_resize_modes import FLOATS, refused, resized
from .values import same_bytes, value

CONV: dict[str, Any] = {"layout": "o i h w", "axes": ["i"]}


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_input_channels_are_adapted_as_timm_does(channels: int, dtype: torch.dtype) -> None:
    kernel = value(spec(5, 3, 4, 4)).to(dtype)
    rule = {"mode": "sum"} if channels == 1 else {"mode": "tile", "rescale": True}
    ours = resized(kernel, [5, channels, 4, 4], **CONV, **rule)
    torch.testing.assert_close(ours, adapt_input_conv(channels, kernel))


def test_the_channels_of_a_folded_stem_are_summed_as_timm_does() -> None:
    kernel = value(spec(5, 12, 4, 4))
    ours = resized(kernel, [5, 4, 4, 4], layout="o (g i) h w", axes={"i": 1}, sizes={"g": 4}, mode="sum")
    torch.testing.assert_close(ours, adapt_input_conv(1, kernel))


def test_tile_repeats_the_channels_in_turn() -> None:
    kernel = value(spec(2, 3, 2, 2))
    ours = resized(kernel, [2, 7, 2, 2], **CONV, mode="tile")
    assert same_bytes(ours, kernel[:, [0, 1, 2, 0, 1, 2, 0]])
    assert same_bytes(resized(kernel, [2, 2, 2, 2], **CONV, mode="tile"), kernel[:, :2].contiguous())
    numbers = torch.arange(6).reshape(2, 3)
    assert resized(numbers, [2, 5], layout="o i", axes=["i"], mode="tile").tolist() == [
        [0, 1, 2, 0, 1],
        [3, 4, 5, 3, 4],
    ]


def test_sum_and_mean_make_every_channel_the_same() -> None:
    kernel = value(spec(2, 4, 3, 3))
    for mode, expected in (("sum", kernel.double().sum(1, keepdim=True)), ("mean", kernel.double().mean(1, True))):
        for count in (1, 3):
            ours = resized(kernel, [2, count, 3, 3], **CONV, mode=mode)
            torch.testing.assert_close(ours, expected.float().expand(2, count, 3, 3))


@pytest.mark.parametrize("count", [1, 2, 6, 9])
@pytest.mark.parametrize("mode", ["tile", "sum", "mean"])
def test_rescale_keeps_the_response_to_channels_that_are_alike(mode: str, count: int) -> None:
    kernel, image = value(spec(5, 3, 4, 4)), value(spec(1, 1, 4, 4), 1)
    if mode == "tile" and count % 3:
        kernel = kernel[:, :1].expand(5, 3, 4, 4).contiguous()
    before = functional.conv2d(image.expand(1, 3, 4, 4), kernel)
    ours = resized(kernel, [5, count, 4, 4], **CONV, mode=mode, rescale=True)
    after = functional.conv2d(image.expand(1, count, 4, 4), ours)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_channels_beside_a_part_that_stays() -> None:
    table = value(spec(7, 2))
    ours = resized(table, [9, 2], layout="(p + n + q) c", axes=["n"], sizes={"p": 1, "q": 3}, mode="mean")
    mean = table[1:4].double().mean(0, keepdim=True).float()
    torch.testing.assert_close(ours, torch.cat([table[:1], mean.expand(5, 2), table[4:]]))
    assert same_bytes(ours[:1].clone(), table[:1].clone())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rule", [{"mode": "tile", "rescale": True}, {"mode": "sum"}, {"mode": "mean"}])
def test_channels_keep_their_dtype(dtype: torch.dtype, rule: dict[str, Any]) -> None:
    kernel = value(spec(5, 3, 2, 2)).to(dtype)
    exact = resized(kernel.float(), [5, 4, 2, 2], **CONV, **rule)
    assert same_bytes(resized(kernel, [5, 4, 2, 2], **CONV, **rule), exact.to(dtype))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.bool, torch.int64])
def test_tile_moves_bytes_of_any_dtype(dtype: torch.dtype) -> None:
    table = value(spec(2, 3)).to(dtype)
    ours = resized(table, [2, 6], layout="o i", axes=["i"], mode="tile")
    assert same_bytes(ours, torch.cat([table, table], 1))


@pytest.mark.parametrize("mode", ["tile", "sum", "mean"])
def test_the_right_number_of_channels_is_left_alone(mode: str) -> None:
    rule = {"op": "resize", "keys": "w", **CONV, "mode": mode, "rescale": True}
    assert plan([rule], {"w": [5, 3, 2, 2]}, {"w": [5, 3, 2, 2]}).rows["w"].expr == Read("w", spec(5, 3, 2, 2))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"mode": "sum", "axes": ["i", "h"]}, "sum works along one axis"),
        ({"mode": "tile", "antialias": True}, "antialias: tile has none"),
        ({"mode": "mean", "fill": 1}, "fill: mean adds nothing"),
        ({"mode": "crop", "rescale": True}, "rescale: crop has none"),
        ({"mode": "pad", "rescale": True}, "rescale: pad has none"),
        ({"mode": "pinv", "axes": ["h", "w"], "rescale": True}, "rescale: pinv has none"),
    ],
)
def test_a_resize_of_channels_that_is_written_wrong(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeSchemaError, match=message):
        plan([{"op": "resize", "keys": "w", **CONV, **rule}], {"w": [1, 3, 2, 2]}, {"w": [1, 1, 2, 2]})


def test_a_resize_of_channels_that_makes_no_sense() -> None:
    for rule in ({"mode": "sum"}, {"mode": "mean"}, {"mode": "tile", "rescale": True}):
        found = refused([1, 3, 2, 2], [1, 1, 2, 2], DType.I64, **CONV, **rule)
        assert f"{rule['mode']} needs floating numbers, this is I64" in found
    assert "tile cannot resize i from 3 to 0" in refused([1, 3, 2, 2], [1, 0, 2, 2], **CONV, mode="tile")
    assert "mean cannot resize i from 0 to 3" in refused([1, 0, 2, 2], [1, 3, 2, 2], **CONV, mode="mean")
