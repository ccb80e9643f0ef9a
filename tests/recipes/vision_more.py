"""Image models: BEiT, torchvision's transformers, and other numbers of input channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from timm.models._manipulate import adapt_input_conv
from timm.models.beit import Beit
from torch import Tensor, nn
from transformers import BeitConfig, BeitForImageClassification, BeitModel

from tests.recipes.case import Case, images, save_pretrained
from tests.recipes.vision import Model, timm_vit, tv_swin, tv_vit
from tests.recipes.vision_transformers import VIT, swin, vit

Stem = Callable[[nn.Module], nn.Conv2d]


def channels(count: int) -> Callable[[], Tensor]:
    """Give random images, [2, count, 32, 32]."""
    return lambda: torch.randn(2, count, 32, 32)


class Repeating(nn.Module):
    """A model of three channels for images of one, each of which is repeated."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, grey: Tensor) -> Tensor:
        return self.model(grey.repeat(1, 3, 1, 1))


class Averaging(nn.Module):
    """A model of three channels for images of six: the mean of the first three and the last three."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images[:, :3] + images[:, 3:]) / 2)


class Pooled(nn.Module):
    """The pooled output of a model of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).pooler_output


def beit_config(**options: Any) -> BeitConfig:
    return BeitConfig(**VIT, image_size=32, **options)


def relative_beit() -> nn.Module:
    """A BEiT as it is fine-tuned: positions relative in each layer, a head on the mean of all patches."""
    return BeitForImageClassification(beit_config(use_relative_position_bias=True))


def headless_beit() -> nn.Module:
    return BeitModel(beit_config(use_relative_position_bias=True))


def absolute_beit() -> nn.Module:
    """A BEiT nearer to the pretrained one: positions absolute and shared by all layers, a head on the class token."""
    options = {"use_absolute_position_embeddings": True, "use_shared_relative_position_bias": True}
    return BeitForImageClassification(beit_config(use_mask_token=True, use_mean_pooling=False, **options))


def timm_beit(**options: Any) -> nn.Module:
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 12, "num_heads": 3, "mlp_ratio": 2, "num_classes": 5}
    return Beit(img_size=32, init_values=0.1, **(sizes | options))


def timm_relative_beit(**options: Any) -> nn.Module:
    return timm_beit(use_abs_pos_emb=False, use_rel_pos_bias=True, **options)


def timm_absolute_beit() -> nn.Module:
    return timm_beit(use_shared_rel_pos_bias=True, global_pool="token")


def beits(transformers_model: Model, timm_model: Model, name: str) -> list[Case]:
    """Prove the recipes of both directions, and that a file which transformers wrote is understood as well."""
    back = "transformers-timm-beit"
    return [
        Case("timm-transformers-beit", timm_model, transformers_model, images(32), name),
        Case(back, transformers_model, timm_model, images(32), name),
        Case(back, transformers_model, timm_model, images(32), f"{name}-file", save=save_pretrained),
    ]


def with_channels(model: nn.Module, path: str, count: int) -> nn.Module:
    """Give a model another first convolution, with the weights that timm makes of the present ones."""
    parent, _, name = path.rpartition(".")
    stem = model.get_submodule(path)
    assert isinstance(stem, nn.Conv2d)
    made = nn.Conv2d(count, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=stem.bias is not None)  # type: ignore[arg-type]
    made.load_state_dict({**stem.state_dict(), "weight": adapt_input_conv(count, stem.weight.detach())})
    setattr(model.get_submodule(parent), name, made)
    return model


def with_stem(model: Model, path: str) -> list[Case]:
    """Prove both recipes for a model whose first convolution has that name."""
    name = path.replace(".", "_")
    return [
        Case(
            "sum-input-channels",
            model,
            lambda: with_channels(model(), path, 1),
            channels(1),
            name,
            reference=Repeating,
        ),
        Case(
            "tile-input-channels",
            model,
            lambda: with_channels(model(), path, 6),
            channels(6),
            f"{name}-twice",
            reference=Averaging,
        ),
        Case(
            "tile-input-channels",
            model,
            lambda: with_channels(model(), path, 4),
            channels(4),
            name,
            reference=lambda source: with_channels(source, path, 4),
        ),
    ]


CASES = [
    *beits(relative_beit, timm_relative_beit, "relative"),
    *beits(absolute_beit, timm_absolute_beit, "absolute"),
    Case(
        "transformers-timm-beit",
        headless_beit,
        partial(timm_relative_beit, num_classes=0),
        images(32),
        "headless",
        reference=Pooled,
    ),
    Case("transformers-torchvision-vit", vit, tv_vit, images(32)),
    Case("transformers-torchvision-vit", vit, tv_vit, images(32), "file", save=save_pretrained),
    Case("torchvision-transformers-swin", tv_swin, swin, images(64)),
    Case("transformers-torchvision-swin", swin, tv_swin, images(64)),
    Case("transformers-torchvision-swin", swin, tv_swin, images(64), "file", save=save_pretrained),
    *with_stem(partial(torchvision.models.resnet18, num_classes=5), "conv1"),
    *with_stem(partial(torchvision.models.mobilenet_v2, width_mult=0.35, num_classes=5), "features.0.0"),
    *with_stem(partial(timm.create_model, "mobilenetv2_035", num_classes=5), "conv_stem"),
    *with_stem(timm_vit, "patch_embed.proj"),
]
