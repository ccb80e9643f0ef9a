"""Language models of torchtune, against transformers and Meta's layout."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torchtune.models.gemma._component_builders import gemma as torchtune_gemma
from torchtune.models.llama2 import llama2 as torchtune_llama
from torchtune.models.mistral._component_builders import mistral as torchtune_mistral
from torchtune.models.phi3._component_builders import phi3 as torchtune_phi3
from torchtune.models.qwen2._component_builders import qwen2 as torchtune_qwen2
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.recipes.case import Case, save_pretrained, tokens
from tests.recipes.language import HEADS, SIZES, VOCABULARY, llama, meta_llama
from tests.recipes.vision import Model

COUNTS = HEADS | {"n_kv_heads": 2}
TORCHTUNE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_layers": 12,
    "num_heads": 6,
    "num_kv_heads": 2,
    "embed_dim": 24,
    "intermediate_dim": 40,
    "max_seq_len": 32,
    "norm_eps": 1e-6,
}
TRANSFORMERS: dict[str, Any] = SIZES | {"num_key_value_heads": 2, "rms_norm_eps": 1e-6}


def qwen2(tied: bool = False) -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**TRANSFORMERS, tie_word_embeddings=tied))


def gemma() -> nn.Module:
    return GemmaForCausalLM(GemmaConfig(**TRANSFORMERS, head_dim=8))


def mistral() -> nn.Module:
    return MistralForCausalLM(MistralConfig(**TRANSFORMERS, sliding_window=None))


def phi3() -> nn.Module:
    return Phi3ForCausalLM(Phi3Config(**TRANSFORMERS))


def both_ways(
    family: str, transformers_model: Model, torchtune_model: Model, variables: dict[str, int], name: str = ""
) -> list[Case]:
    there, back = f"transformers-torchtune-{family}", f"torchtune-transformers-{family}"
    models = transformers_model, torchtune_model
    return [
        Case(there, *models, tokens(VOCABULARY), name, variables),
        Case(there, *models, tokens(VOCABULARY), f"{name}-file".lstrip("-"), variables, save=save_pretrained),
        Case(back, *reversed(models), tokens(VOCABULARY), name, variables),
    ]


CASES = [
    *both_ways("llama", llama, partial(torchtune_llama, **TORCHTUNE), COUNTS),
    *both_ways("qwen2", qwen2, partial(torchtune_qwen2, **TORCHTUNE, rope_base=10000.0), {}),
    *both_ways("gemma", gemma, partial(torchtune_gemma, **TORCHTUNE, head_dim=8), COUNTS),
    *both_ways("llama", mistral, partial(torchtune_mistral, **TORCHTUNE), COUNTS, "mistral"),
    *both_ways("phi3", phi3, partial(torchtune_phi3, **TORCHTUNE), {}),
    Case(
        "transformers-torchtune-qwen2",
        partial(qwen2, tied=True),
        partial(torchtune_qwen2, **TORCHTUNE, rope_base=10000.0, tie_word_embeddings=True),
        tokens(VOCABULARY),
        "tied",
        save=save_pretrained,
    ),
    Case("meta-torchtune-llama", meta_llama, partial(torchtune_llama, **TORCHTUNE), tokens(VOCABULARY)),
    Case("torchtune-meta-llama", partial(torchtune_llama, **TORCHTUNE), meta_llama, tokens(VOCABULARY)),
]
