"""Targets that are not the network of the checkpoint: nothing is taken from another place because its shape fits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import timm
import torchvision
from torch import nn

from tests.inference.test_edits import answer, made, open_keys


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name)  # type: ignore[no-any-return]


Build = Callable[[], nn.Module]

PAIRS: dict[str, tuple[Build, Build]] = {
    "half the width": (lambda: timm_model("mobilenetv2_100"), lambda: timm_model("mobilenetv2_050")),
    "another kind of block": (torchvision.models.resnet18, torchvision.models.resnet50),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_has_a_namesake_of_another_shape_goes_nowhere_else(pair: tuple[Build, Build]) -> None:
    source, target = (build() for build in pair)
    found = answer(source, target)
    assert {key: source for key, source in made(found).items() if source != (key,)} == {}
    assert found.unresolved


def test_norms_of_other_convolutions_stay_open() -> None:
    """Of half the width, some norms have the length of others; their convolutions have no counterpart."""
    source, target = (build() for build in PAIRS["half the width"])
    found = answer(source, target)
    for key in made(found):
        if key.endswith(".weight") and ".bn" in key:
            before = key.replace(".bn1.", ".conv_pw.").replace(".bn2.", ".conv_dw.").replace(".bn3.", ".conv_pwl.")
            if before in target.state_dict() and not key.startswith("blocks.0"):
                assert before in made(found), key


class Pooled(nn.Module):
    """Attention that pools: its projections in one, or the query's apart from the keys' and values'."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 16, 4)
        self.attn_pool = nn.Module()
        if fused:
            self.attn_pool.in_proj_weight = nn.Parameter(nn.Linear(16, 48).weight)
            self.attn_pool.in_proj_bias = nn.Parameter(nn.Linear(16, 48).bias)
        else:
            self.attn_pool.q, self.attn_pool.kv = nn.Linear(16, 16), nn.Linear(16, 32)
        self.head = nn.Linear(16, 3)


@pytest.mark.parametrize("fused", [True, False])
def test_a_query_is_split_from_keys_and_values_that_stay_together(fused: bool) -> None:
    links = {
        key: link for link in answer(Pooled(fused=fused), Pooled(fused=not fused)).links for key in link.target_keys
    }
    if fused:
        assert links["attn_pool.q.weight"].source_keys == ("attn_pool.in_proj_weight",)
        assert links["attn_pool.kv.bias"].target_keys == ("attn_pool.q.bias", "attn_pool.kv.bias")
    else:
        assert links["attn_pool.in_proj_weight"].source_keys == ("attn_pool.q.weight", "attn_pool.kv.weight")


class Patches(nn.Module):
    """An embedding of patches, by a matrix or by filters, and an embedding of what a stem gives."""

    def __init__(self, channels: int, *, filters: bool) -> None:
        super().__init__()
        size = channels * 16
        self.patch_embed = nn.Conv2d(channels, 24, 4) if filters else nn.Linear(size, 24)
        self.head = nn.Linear(24, 3)


def test_the_order_of_a_flattened_patch_is_open() -> None:
    """Colours may come first or last; maps of features are flattened with their channels first."""
    assert (
        "channels last" in open_keys(answer(Patches(3, filters=False), Patches(3, filters=True)))["patch_embed.weight"]
    )
    assert "patch_embed.weight" in made(answer(Patches(32, filters=False), Patches(32, filters=True)))


class Units(nn.Module):
    """Norms before convolutions, named by a number or by the kernel and a letter."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3)
        for i in (1, 2):
            block = nn.Module()
            for name, size, width, out in zip(names, (1, 3, 1), (48, 32, 32), (32, 32, 48), strict=True):
                layers = OrderedDict(bn=nn.BatchNorm2d(width), conv=nn.Conv2d(width, out, size))
                block.add_module(name, nn.Sequential(layers))
            self.add_module(f"unit{i}", block)


def test_a_kernel_in_a_name_does_not_count_layers() -> None:
    found = made(answer(Units("conv1", "conv2", "conv3"), Units("c1x1_a", "c3x3_b", "c1x1_c")))
    for i in (1, 2):
        for one, other in (("conv1", "c1x1_a"), ("conv2", "c3x3_b"), ("conv3", "c1x1_c")):
            for key in ("bn.weight", "conv.weight"):
                assert found[f"unit{i}.{other}.{key}"] == (f"unit{i}.{one}.{key}",)
