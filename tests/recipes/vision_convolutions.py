"""Convolutional image models of transformers, against torchvision and timm."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torchvision
from torch import nn
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from tests.recipes.case import Case, State, images, renamed
from tests.recipes.vision import Model, named, tv_convnext
from tests.recipes.vision_transformers import convnext

REGNET: dict[str, Any] = {
    "y": {"hidden_sizes": [48, 104, 208, 440], "depths": [1, 3, 6, 6], "groups_width": 8},
    "x": {"hidden_sizes": [32, 64, 160, 400], "depths": [1, 2, 7, 12], "groups_width": 16},
}
"""As in RegNet X and Y of 400 MF."""


def resnet(**options: Any) -> nn.Module:
    return ResNetForImageClassification(ResNetConfig(num_labels=5, **options))


def resnet18() -> nn.Module:
    return resnet(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2])


def regnet(layer_type: str) -> nn.Module:
    return RegNetForImageClassification(RegNetConfig(num_labels=5, layer_type=layer_type, **REGNET[layer_type]))


def mobilenet(**options: Any) -> nn.Module:
    return MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.5, num_labels=5, **options))


def torch_mobilenet() -> nn.Module:
    """A MobileNetV2 that pads and normalises as torchvision's."""
    return mobilenet(tf_padding=False, layer_norm_eps=1e-5)


def without_counts(state: State) -> State:
    """Leave out what files from before 2018 lack."""
    return {key: state[key] for key in state if not key.endswith("num_batches_tracked")}


def with_transformers(library: str, family: str, model: Model, transformers_model: Model, name: str = "") -> list[Case]:
    """Prove the recipes of both directions."""
    return [
        Case(f"{library}-transformers-{family}", model, transformers_model, images(64), name),
        Case(f"transformers-{library}-{family}", transformers_model, model, images(64), name),
    ]


def regnets(library: str, model: Model, layer_type: str) -> list[Case]:
    """Prove the recipes of both directions; a module has no config at hand that says which type it is."""
    transformers_model, variables = partial(regnet, layer_type), {"layer_type": layer_type}
    return [
        Case(f"{library}-transformers-regnet", model, transformers_model, images(64), layer_type, variables),
        Case(f"transformers-{library}-regnet", transformers_model, model, images(64), layer_type),
    ]


TV_RESNET18, TIMM_RESNET18 = named("resnet18")
TV_RESNET50, TIMM_RESNET50 = named("resnet50")
TV_MOBILENET = partial(torchvision.models.mobilenet_v2, width_mult=0.5, num_classes=5)
TIMM_MOBILENET = partial(timm.create_model, "mobilenetv2_050", num_classes=5)
CASES = [
    *with_transformers("torchvision", "resnet", TV_RESNET18, resnet18, "basic"),
    *with_transformers("torchvision", "resnet", TV_RESNET50, resnet, "bottleneck"),
    *with_transformers("torchvision", "resnet", TIMM_RESNET18, resnet18, "timm-basic"),
    *with_transformers("torchvision", "resnet", TIMM_RESNET50, resnet, "timm-bottleneck"),
    Case(
        "torchvision-transformers-resnet",
        TV_RESNET18,
        resnet18,
        images(64),
        "published",
        save=renamed(without_counts),
    ),
    *with_transformers("torchvision", "convnext", tv_convnext, convnext),
    *regnets("torchvision", partial(torchvision.models.regnet_x_400mf, num_classes=5), "x"),
    *regnets("torchvision", partial(torchvision.models.regnet_y_400mf, num_classes=5), "y"),
    *regnets("timm", partial(timm.create_model, "regnetx_004_tv", num_classes=5), "x"),
    *regnets("timm", partial(timm.create_model, "regnety_004", num_classes=5), "y"),
    *with_transformers("torchvision", "mobilenet_v2", TV_MOBILENET, torch_mobilenet),
    *with_transformers("timm", "mobilenet_v2", TIMM_MOBILENET, torch_mobilenet),
    *with_transformers(
        "timm", "mobilenet_v2", partial(TIMM_MOBILENET, pad_type="same", bn_eps=1e-3), mobilenet, "tensorflow"
    ),
]
