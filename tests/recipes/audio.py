"""Speech models: transformers against openai-whisper, and weight norm of old files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, WhisperConfig, WhisperForConditionalGeneration
from whisper.model import ModelDimensions, Whisper

from tests.recipes.case import Case, State, renamed, save_pretrained

MELS, FRAMES, WIDTH, HEADS, LAYERS, VOCABULARY = 8, 32, 24, 3, 12, 61
DIMENSIONS = ModelDimensions(MELS, FRAMES // 2, WIDTH, HEADS, LAYERS, VOCABULARY, FRAMES // 2, WIDTH, HEADS, LAYERS)
SAID = (torch.arange(24) * 7 % VOCABULARY).view(2, 12)
"""What the decoder is given."""


class OpenAIWhisper(Whisper):
    """Give the logits of what is said."""

    def forward(self, mel: Tensor) -> Tensor:
        return super().forward(mel, SAID)


class TransformersWhisper(WhisperForConditionalGeneration):
    """Give the logits of what is said."""

    def forward(self, mel: Tensor) -> Any:
        return super().forward(mel, decoder_input_ids=SAID)


def openai() -> nn.Module:
    return OpenAIWhisper(DIMENSIONS)


def transformers() -> nn.Module:
    sizes = {f"{side}_layers": LAYERS for side in ("encoder", "decoder")}
    sizes |= {f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 4 * WIDTH for side in ("encoder", "decoder")}
    sizes |= {f"max_{side}_positions": FRAMES // 2 for side in ("source", "target")}
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}
    return TransformersWhisper(
        WhisperConfig(vocab_size=VOCABULARY, num_mel_bins=MELS, d_model=WIDTH, **sizes, **special)
    )


def published(model: nn.Module, folder: Path) -> Path:
    """Save a model as OpenAI's files hold it."""
    torch.save({"dims": asdict(DIMENSIONS), "model_state_dict": model.state_dict()}, folder / "source.pt")
    return folder / "source.pt"


def sounds() -> Tensor:
    """Give two random spectrograms."""
    return torch.randn(2, MELS, FRAMES)


def wav2vec2() -> nn.Module:
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 40}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (5, 3), "conv_stride": (3, 2), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0}
    return Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=VOCABULARY, **sizes, **convolutions, **positions))


def published_wav2vec2(state: State) -> State:
    """The names of the published files, of before torch 2.0."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    return {
        next((key.replace(new, old) for new, old in names.items() if new in key), key): tensor
        for key, tensor in state.items()
    }


CASES = [
    Case("openai-transformers-whisper", openai, transformers, sounds),
    Case("openai-transformers-whisper", openai, transformers, sounds, "published", save=published),
    Case("transformers-openai-whisper", transformers, openai, sounds),
    Case("transformers-openai-whisper", transformers, openai, sounds, "file", save=save_pretrained),
    Case(
        "weight_norm-old-new",
        wav2vec2,
        wav2vec2,
        lambda: torch.randn(2, 300),
        "wav2vec2",
        save=renamed(published_wav2vec2),
    ),
]
