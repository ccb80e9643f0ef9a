"""Language models, and recipes of no family."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from tests.recipes.case import Case, State, images, renamed, save_pretrained, tokens
from tests.recipes.layouts import MetaLlama, NanoGPT, split_mixtral, split_neox
from tests.recipes.vision import timm_convnext, timm_vit, tv_swin, tv_vit

VOCABULARY = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
HEADS = {"n_heads": 6}


def llama(more: int = 0) -> nn.Module:
    sizes = SIZES | {"vocab_size": VOCABULARY + more}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, rms_norm_eps=1e-6))


def meta_llama() -> nn.Module:
    return MetaLlama(VOCABULARY, 24, 12, 6, 2, 40)


def gpt2(more: int = 0) -> nn.Module:
    sizes = {"n_positions": 32, "n_embd": 24, "n_layer": 12, "n_head": 6, "bos_token_id": 0, "eos_token_id": 1}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY + more, activation_function="gelu", **sizes))


def nanogpt(bias: bool = True) -> nn.Module:
    return NanoGPT(VOCABULARY, 32, 24, 12, 6, bias=bias)


def published_gpt2(state: State) -> State:
    """The names of the published file: no head, no prefix, causal masks."""
    old = {key.removeprefix("transformer."): tensor for key, tensor in state.items() if key != "lm_head.weight"}
    return old | {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(12)}


def neox(more: int = 0) -> nn.Module:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES | {"vocab_size": VOCABULARY + more}))


def mixtral() -> nn.Module:
    return MixtralForCausalLM(mixtral_config())


def mixtral_config() -> MixtralConfig:
    sizes = SIZES | {"num_hidden_layers": 3}
    return MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=11, num_experts_per_tok=4)


def bert() -> nn.Module:
    return BertForMaskedLM(BertConfig(**SIZES | {"pad_token_id": 0}))


def gamma_beta(state: State) -> State:
    """The names of BERT's first files."""
    return {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): state[key]
        for key in state
    }


def normed_net(norm: Any) -> nn.Module:
    """Twelve layers with weight norm, old or new."""
    layers = [layer for _ in range(11) for layer in (norm(nn.Linear(8, 8)), nn.Tanh())]
    return nn.Sequential(norm(nn.Linear(192, 8)), *layers, norm(nn.Linear(8, 4)))


def prefixed(prefix: str) -> Any:
    """Save the state dict under a prefix."""
    return renamed(lambda state: {prefix + key: state[key] for key in state})


KEPT = [4, 0, 3]


def pick(output: Tensor) -> Tensor:
    """Keep the classes of KEPT."""
    return output[:, KEPT]


def three(model: nn.Module, path: str) -> nn.Module:
    """Replace the head by one of three classes."""
    head = model.get_submodule(path)
    assert isinstance(head, nn.Linear)
    model.set_submodule(path, nn.Linear(head.in_features, 3))
    return model


CASES = [
    Case("transformers-meta-llama", llama, meta_llama, tokens(VOCABULARY), variables=HEADS | {"n_kv_heads": 2}),
    Case("meta-transformers-llama", meta_llama, llama, tokens(VOCABULARY), variables=HEADS | {"n_kv_heads": 2}),
    Case("transformers-nanogpt-gpt2", gpt2, nanogpt, tokens(VOCABULARY)),
    Case("transformers-nanogpt-gpt2", gpt2, nanogpt, tokens(VOCABULARY), "published", save=renamed(published_gpt2)),
    Case("nanogpt-transformers-gpt2", nanogpt, gpt2, tokens(VOCABULARY)),
    Case("nanogpt-transformers-gpt2", partial(nanogpt, bias=False), gpt2, tokens(VOCABULARY), "no-bias"),
    Case("nanogpt-transformers-gpt2", nanogpt, gpt2, tokens(VOCABULARY), "compiled", save=prefixed("_orig_mod.")),
    Case(
        "gpt_neox-fused-split",
        neox,
        lambda: split_neox(GPTNeoXConfig(**SIZES)),
        tokens(VOCABULARY),
        variables=HEADS,
    ),
    Case(
        "gpt_neox-split-fused",
        lambda: split_neox(GPTNeoXConfig(**SIZES)),
        neox,
        tokens(VOCABULARY),
        variables=HEADS,
    ),
    Case("mixtral-per_expert-fused", lambda: split_mixtral(mixtral_config()), mixtral, tokens(VOCABULARY, 40)),
    Case("mixtral-per_expert-fused", mixtral, mixtral, tokens(VOCABULARY, 40), "file", save=save_pretrained),
    Case("mixtral-fused-per_expert", mixtral, lambda: split_mixtral(mixtral_config()), tokens(VOCABULARY, 40)),
    Case("bert-gamma-beta", bert, bert, tokens(VOCABULARY), save=renamed(gamma_beta)),
    Case(
        "weight_norm-old-new",
        lambda: nn.Sequential(nn.Flatten(), normed_net(weight_norm)),
        lambda: nn.Sequential(nn.Flatten(), normed_net(parametrizations.weight_norm)),
        images(8),
    ),
    Case(
        "weight_norm-new-old",
        lambda: nn.Sequential(nn.Flatten(), normed_net(parametrizations.weight_norm)),
        lambda: nn.Sequential(nn.Flatten(), normed_net(weight_norm)),
        images(8),
    ),
    Case("strip-wrappers", timm_vit, timm_vit, images(32), "ddp", save=prefixed("module.")),
    Case("strip-wrappers", timm_vit, timm_vit, images(32), "compiled-ddp", save=prefixed("_orig_mod.module.")),
    Case("strip-lightning", timm_vit, timm_vit, images(32), save=prefixed("model.")),
    *(
        Case(
            "subset-classes",
            model,
            partial(lambda model, path: three(model(), path), model, path),
            images(size),
            path,
            {"classes": KEPT},
            expected=pick,
        )
        for model, path, size in (
            (tv_vit, "heads.head", 32),
            (tv_swin, "head", 64),
            (timm_convnext, "head.fc", 64),
            (partial(torchvision.models.mobilenet_v2, width_mult=0.25, num_classes=5), "classifier.1", 64),
        )
    ),
]
