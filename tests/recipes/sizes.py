"""The same architecture in another size, held against what the libraries do themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from tests.recipes.case import Case, images, tokens
from tests.recipes.language import VOCABULARY, gpt2, llama, neox
from tests.recipes.vision import timm_vit, tv_vit
from tests.recipes.vision_transformers import deit, dinov2, vit

LARGE = 48
MORE = 7
"""Tokens to add."""


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
    Case("grow-vocabulary", gpt2, lambda: gpt2(MORE), tokens(VOCABULARY), "gpt2", expected=with_mean),
    Case("grow-vocabulary", llama, lambda: llama(MORE), tokens(VOCABULARY), "llama", expected=with_mean),
    Case("grow-vocabulary", neox, lambda: neox(MORE), tokens(VOCABULARY), "gpt-neox", expected=with_mean),
]
