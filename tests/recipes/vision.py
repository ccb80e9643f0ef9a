"""Image models: torchvision and timm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torchvision
from timm.layers import ClassifierHead
from timm.models.convnext import ConvNeXt
from timm.models.densenet import DenseNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vgg import VGG, ConvMlp
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vgg import make_layers

from tests.recipes.case import Case, State, images, renamed

Model = Callable[[], nn.Module]
VGG_WIDTHS: list[Any] = [4, "M", 6, "M", 8, 8]
"""28 pixels end as 7 x 7, so that the order in which they are flattened matters."""


def tv_vgg(batch_norm: bool) -> nn.Module:
    features = make_layers(VGG_WIDTHS, batch_norm=batch_norm)
    model = torchvision.models.VGG(nn.Identity(), num_classes=5, init_weights=False)
    model.features = features
    model.classifier = nn.Sequential(
        nn.Linear(8 * 49, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5)
    )
    return model


def timm_vgg(batch_norm: bool) -> nn.Module:
    model = VGG(VGG_WIDTHS, num_classes=5, norm_layer=nn.BatchNorm2d if batch_norm else None)
    model.pre_logits = ConvMlp(8, 32, 7)
    model.head = ClassifierHead(32, 5)
    return model


def tv_densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 3, 11, 2), 16, num_classes=5)


def timm_densenet() -> nn.Module:
    return DenseNet(growth_rate=8, block_config=(2, 3, 11, 2), num_classes=5)


def tv_vit(image: int = 32) -> nn.Module:
    return torchvision.models.VisionTransformer(image, 8, 12, 3, 24, 48, num_classes=5)


def timm_vit(image: int = 32, **options: Any) -> nn.Module:
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 12, "num_heads": 3, "mlp_ratio": 2, "num_classes": 5}
    return VisionTransformer(img_size=image, **(sizes | options))


def tv_swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1, 11, 1], [1, 2, 2, 4], [2, 2], num_classes=5)


def timm_swin() -> nn.Module:
    return SwinTransformer(
        img_size=64, window_size=2, embed_dim=16, depths=(1, 1, 11, 1), num_heads=(1, 2, 2, 4), num_classes=5
    )


def tv_convnext() -> nn.Module:
    stages = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, 24, 1), CNBlockConfig(24, 32, 11), CNBlockConfig(32, None, 1)]
    return torchvision.models.ConvNeXt(stages, num_classes=5)


def timm_convnext() -> nn.Module:
    return ConvNeXt(depths=(2, 1, 11, 1), dims=(8, 16, 24, 32), num_classes=5)


def old_densenet_names(state: State) -> State:
    """The names of torchvision's published files, which have no num_batches_tracked either."""
    names = {f".{kind}{n}.": f".{kind}.{n}." for kind in ("norm", "conv") for n in (1, 2)}
    old: State = {}
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        new = key
        for name, replacement in names.items():
            new = new.replace(name, replacement) if "denselayer" in key else new
        old[new] = tensor
    return old


def old_vit_names(state: State) -> State:
    """The names of torchvision's published files."""
    return {key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): state[key] for key in state}


def both_ways(
    family: str,
    torchvision_model: Callable[[], nn.Module],
    timm_model: Callable[[], nn.Module],
    size: int,
    name: str = "",
) -> list[Case]:
    return [
        Case(f"torchvision-timm-{family}", torchvision_model, timm_model, images(size), name),
        Case(f"timm-torchvision-{family}", timm_model, torchvision_model, images(size), name),
    ]


def named(name: str) -> tuple[Model, Model]:
    """Give the model of that name in both libraries, with 5 classes."""
    return (
        partial(torchvision.models.get_model, name, weights=None, num_classes=5),
        partial(timm.create_model, name, num_classes=5),
    )


CASES = [
    *both_ways("resnet", *named("resnet18"), 64, "basic"),
    *both_ways("resnet", *named("resnet50"), 64, "bottleneck"),
    *both_ways(
        "mobilenet_v2",
        partial(torchvision.models.mobilenet_v2, width_mult=0.5, num_classes=5),
        partial(timm.create_model, "mobilenetv2_050", num_classes=5),
        64,
    ),
    *both_ways("vgg", partial(tv_vgg, False), partial(timm_vgg, False), 28),
    *both_ways("vgg", partial(tv_vgg, True), partial(timm_vgg, True), 28, "bn"),
    *both_ways("densenet", tv_densenet, timm_densenet, 64),
    Case(
        "torchvision-timm-densenet",
        tv_densenet,
        timm_densenet,
        images(64),
        "published",
        save=renamed(old_densenet_names),
    ),
    *both_ways("vit", tv_vit, timm_vit, 32),
    Case("torchvision-timm-vit", tv_vit, timm_vit, images(32), "published", save=renamed(old_vit_names)),
    *both_ways("swin", tv_swin, timm_swin, 64),
    *both_ways("convnext", tv_convnext, timm_convnext, 64),
    *both_ways(
        "regnet",
        partial(torchvision.models.regnet_y_400mf, num_classes=5),
        partial(timm.create_model, "regnety_004", num_classes=5),
        64,
        "y",
    ),
    *both_ways(
        "regnet",
        partial(torchvision.models.regnet_x_400mf, num_classes=5),
        partial(timm.create_model, "regnetx_004_tv", num_classes=5),
        64,
        "x",
    ),
]
