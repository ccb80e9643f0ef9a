"""Transformers 5 against files with the names of version 4, as published and as save_pretrained writes them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    CLIPVisionConfig,
    EsmConfig,
    EsmForMaskedLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    ViTModel,
)

from tests.recipes.case import Case, State, images, renamed, save_pretrained, tokens
from tests.recipes.language import SIZES, VOCABULARY, neox
from tests.recipes.vision_transformers import VIT, deit, vit

ESM: dict[str, Any] = SIZES | {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32}
IMAGE_TOKEN = VOCABULARY - 1
SHOWN = (torch.arange(32) * 7 % IMAGE_TOKEN).view(2, 16).index_fill(1, torch.arange(3, 7), IMAGE_TOKEN)
"""Text with an image of four patches."""


def llava() -> nn.Module:
    """Make a LLaVA that gives the logits of a text about an image."""
    vision = CLIPVisionConfig(
        hidden_size=24, num_hidden_layers=12, num_attention_heads=3, intermediate_size=48, image_size=16, patch_size=8
    )
    text = LlamaConfig(**SIZES, num_key_value_heads=2)
    sizes = {"image_token_index": IMAGE_TOKEN, "vision_feature_layer": -1}
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, **sizes))
    # No subclass: save_pretrained chooses names by the class.
    model.forward = partial(model.forward, SHOWN)  # type: ignore[method-assign]
    return model


def published_llava(state: State) -> State:
    """The names of the published files."""
    names = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "lm_head.": "language_model.lm_head.",
    }
    return {
        old + key.removeprefix(new): tensor
        for key, tensor in state.items()
        for new, old in names.items()
        if key.startswith(new)
    }


def esm() -> nn.Module:
    return EsmForMaskedLM(EsmConfig(**ESM, position_embedding_type="rotary", token_dropout=True))


def published_esm(state: State) -> State:
    """The names of the published files."""
    frequencies = state["esm.rotary_embeddings.inv_freq"]
    old = {key: tensor for key, tensor in state.items() if key != "esm.rotary_embeddings.inv_freq"}
    return old | {f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq": frequencies for i in range(12)}


def published_neox(state: State) -> State:
    """The names of the published files, with their causal masks."""
    old = {key.replace("lm_head", "embed_out"): tensor for key, tensor in state.items()}
    for i in range(12):
        old[f"gpt_neox.layers.{i}.attention.bias"] = torch.ones(1, 1, 32, 32).tril()
        old[f"gpt_neox.layers.{i}.attention.masked_bias"] = torch.tensor(-1e9)
        old[f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq"] = torch.rand(2)
    return old


def ast() -> nn.Module:
    sizes = {"num_mel_bins": 16, "max_length": 32, "frequency_stride": 4, "time_stride": 6}
    return ASTForAudioClassification(ASTConfig(**VIT, **sizes))


def spectrograms() -> Tensor:
    """Give two random spectrograms."""
    return torch.randn(2, 32, 16)


def backbone() -> nn.Module:
    model = vit()
    assert isinstance(model.vit, ViTModel)
    return model.vit


CASES = [
    Case("vit-v4-v5", vit, vit, images(32), "vit", save=save_pretrained),
    Case("vit-v4-v5", backbone, backbone, images(32), "backbone", save=save_pretrained),
    Case("vit-v4-v5", deit, deit, images(32), "deit", save=save_pretrained),
    Case("vit-v4-v5", ast, ast, spectrograms, "ast", save=save_pretrained),
    Case("gpt_neox-v4-v5", neox, neox, tokens(VOCABULARY), "file", save=save_pretrained),
    Case("gpt_neox-v4-v5", neox, neox, tokens(VOCABULARY), "published", save=renamed(published_neox)),
    Case("esm-v4-v5", esm, esm, tokens(31), save=renamed(published_esm)),
    Case("llava-v4-v5", llava, llava, images(16), "file", save=save_pretrained),
    Case("llava-v4-v5", llava, llava, images(16), "published", save=renamed(published_llava)),
]
