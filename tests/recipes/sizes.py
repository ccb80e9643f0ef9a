"""The same architecture in another size, held against what the libraries do themselves."""

from __future__ import annotations

import torch
import torchvision
from timm.layers import resize_rel_pos_bias_table_simple
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from tests.recipes.case import Case, images, tokens
from tests.recipes.language import VOCABULARY, gpt2, llama, neox
from tests.recipes.vision import timm_vit, tv_vit
from tests.recipes.vision_transformers import deit, dinov2, vit

LARGE = 48
MORE = 7
"""Tokens to add."""
WINDOW = 4
LARGE_WINDOW = 6


class Interpolating(nn.Module):
    """A model of transformers that fits its position embeddings to the image in the forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> object:
        return self.model(pixels, interpolate_pos_encoding=True)


def timm_larger(model: nn.Module) -> nn.Module:
    """Let timm resize a model."""
    model.set_input_size(img_size=LARGE)  # type: ignore[operator]
    return model


def torchvision_larger(model: nn.Module) -> nn.Module:
    """Let torchvision resize a model."""
    larger = tv_vit(LARGE)
    larger.load_state_dict(interpolate_embeddings(LARGE, 8, model.state_dict()))
    return larger


def timm_swin(image: int, window: int) -> nn.Module:
    return SwinTransformer(
        img_size=image,
        patch_size=1,
        window_size=window,
        embed_dim=16,
        depths=(1, 1, 11, 1),
        num_heads=(1, 2, 2, 4),
        num_classes=5,
    )


def timm_wider(model: nn.Module) -> nn.Module:
    """Let timm widen the windows of a model."""
    model.set_input_size(img_size=LARGE, window_size=LARGE_WINDOW)  # type: ignore[operator]
    return model


def torchvision_swin(window: int = WINDOW) -> nn.Module:
    return torchvision.models.SwinTransformer([1, 1], 16, [1, 1, 11, 1], [1, 2, 2, 4], [window, window], num_classes=5)


def torchvision_wider(model: nn.Module) -> nn.Module:
    """Widen the windows of a model; torchvision has no function for it, so timm's for tables in Swin's way it is."""
    wider = torchvision_swin(LARGE_WINDOW)
    state = model.state_dict()
    for key, present in wider.state_dict().items():
        if key.endswith("relative_position_bias_table"):
            windows = (LARGE_WINDOW, LARGE_WINDOW)
            state[key] = resize_rel_pos_bias_table_simple(state[key], windows, tuple(present.shape))
        elif key.endswith("relative_position_index"):
            state[key] = present
    wider.load_state_dict(state)
    return wider


def with_mean(logits: Tensor) -> Tensor:
    """Add logits of new tokens: their rows are means, and so are their logits."""
    return torch.cat([logits, logits.mean(-1, keepdim=True).expand(*logits.shape[:-1], MORE)], -1)


CASES = [
    Case("resize-timm-vit", timm_vit, lambda: timm_vit(LARGE), images(LARGE), reference=timm_larger),
    Case(
        "resize-timm-vit",
        lambda: timm_vit(reg_tokens=3),
        lambda: timm_vit(LARGE, reg_tokens=3),
        images(LARGE),
        "registers",
        {"prefix": 4},
        reference=timm_larger,
    ),
    Case("resize-torchvision-vit", tv_vit, lambda: tv_vit(LARGE), images(LARGE), reference=torchvision_larger),
    Case("resize-transformers-vit", vit, lambda: vit(LARGE), images(LARGE), "vit", reference=Interpolating),
    Case("resize-transformers-vit", dinov2, lambda: dinov2(LARGE), images(LARGE), "dinov2", reference=Interpolating),
    Case(
        "resize-transformers-vit",
        deit,
        lambda: deit(LARGE),
        images(LARGE),
        "deit",
        {"prefix": 2},
        reference=Interpolating,
    ),
    Case(
        "resize-timm-swin",
        lambda: timm_swin(32, WINDOW),
        lambda: timm_swin(LARGE, LARGE_WINDOW),
        images(LARGE),
        reference=timm_wider,
    ),
    Case(
        "resize-torchvision-swin",
        torchvision_swin,
        lambda: torchvision_swin(LARGE_WINDOW),
        images(LARGE),
        reference=torchvision_wider,
    ),
    Case("grow-vocabulary", gpt2, lambda: gpt2(MORE), tokens(VOCABULARY), "gpt2", expected=with_mean),
    Case("grow-vocabulary", llama, lambda: llama(MORE), tokens(VOCABULARY), "llama", expected=with_mean),
    Case("grow-vocabulary", neox, lambda: neox(MORE), tokens(VOCABULARY), "gpt-neox", expected=with_mean),
]
