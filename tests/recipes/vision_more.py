"""Image models: other numbers of input channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import timm
import torch
import torchvision
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from tests.recipes.case import Case
from tests.recipes.vision import Model, timm_vit

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
    *with_stem(partial(torchvision.models.resnet18, num_classes=5), "conv1"),
    *with_stem(partial(torchvision.models.mobilenet_v2, width_mult=0.35, num_classes=5), "features.0.0"),
    *with_stem(partial(timm.create_model, "mobilenetv2_035", num_classes=5), "conv_stem"),
    *with_stem(timm_vit, "patch_embed.proj"),
]
