"""Image models: transformers against timm and torchvision. A file of transformers has the names of its version 4."""

from __future__ import annotations

from typing import Any

from timm.models.deit import VisionTransformerDistilled
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tests.recipes.case import Case, images, renamed, save_pretrained
from tests.recipes.vision import Model, old_vit_names, timm_convnext, timm_swin, timm_vit, tv_vit

VIT: dict[str, Any] = {
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "num_labels": 5,
    "layer_norm_eps": 1e-6,
}


def vit(image: int = 32) -> nn.Module:
    return ViTForImageClassification(ViTConfig(**VIT, image_size=image))


def deit(image: int = 32) -> nn.Module:
    return DeiTForImageClassificationWithTeacher(DeiTConfig(**VIT, image_size=image))


def timm_deit() -> nn.Module:
    return VisionTransformerDistilled(
        img_size=32, patch_size=8, embed_dim=24, depth=12, num_heads=3, mlp_ratio=2, num_classes=5
    )


def dinov2(image: int = 32) -> nn.Module:
    return Dinov2Model(Dinov2Config(**VIT, image_size=image, mlp_ratio=2))


def timm_dinov2() -> nn.Module:
    return timm_vit(num_classes=0, init_values=1e-5, global_pool="")


def swin() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": [1, 1, 11, 1], "num_heads": [1, 2, 2, 4], "window_size": 2}
    return SwinForImageClassification(SwinConfig(image_size=64, num_labels=5, **sizes))


def convnext() -> nn.Module:
    sizes = {"depths": [2, 1, 11, 1], "hidden_sizes": [8, 16, 24, 32]}
    return ConvNextForImageClassification(ConvNextConfig(num_labels=5, layer_norm_eps=1e-6, **sizes))


def with_timm(family: str, transformers_model: Model, timm_model: Model, size: int) -> list[Case]:
    """Prove the recipes of both directions, and that a file which transformers wrote is understood as well."""
    back = f"transformers-timm-{family}"
    return [
        Case(f"timm-transformers-{family}", timm_model, transformers_model, images(size)),
        Case(back, transformers_model, timm_model, images(size)),
        Case(back, transformers_model, timm_model, images(size), "file", save=save_pretrained),
    ]


CASES = [
    *with_timm("vit", vit, timm_vit, 32),
    *with_timm("deit", deit, timm_deit, 32),
    *with_timm("dinov2", dinov2, timm_dinov2, 32),
    *with_timm("swin", swin, timm_swin, 64),
    *with_timm("convnext", convnext, timm_convnext, 64),
    Case("torchvision-transformers-vit", tv_vit, vit, images(32)),
    Case("torchvision-transformers-vit", tv_vit, vit, images(32), "published", save=renamed(old_vit_names)),
]
