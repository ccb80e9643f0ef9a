"""Mixtures of experts: fused as in transformers 5, and with layers for each expert as in its files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeMLP

from tests.recipes.case import Case, save_pretrained, tokens
from tests.recipes.language import SIZES, VOCABULARY
from tests.recipes.layouts import GatedFeedForward
from tests.recipes.vision import Model

MODEL: dict[str, Any] = SIZES | {"num_hidden_layers": 3, "num_key_value_heads": 2, "num_experts_per_tok": 4}
LOCAL: dict[str, Any] = MODEL | {"num_local_experts": 11}
ROUTED: dict[str, Any] = MODEL | {"n_routed_experts": 12, "moe_intermediate_size": 20, "first_k_dense_replace": 1}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 6,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
}


class Chosen(nn.ModuleList):
    """A module for each expert, of which every token has chosen some."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        each = torch.stack([expert(x) for expert in self], 1)
        shares = torch.zeros(each.shape[:2]).scatter(1, chosen, weights)
        return (each * shares.unsqueeze(-1)).sum(1)


def with_modules(fused: Model) -> nn.Module:
    """Make a model with a module for each expert."""
    model: Any = fused()
    for block in list(model.modules()):
        experts: Any = getattr(block, "experts", None)
        if experts is not None:
            expert = partial(Qwen2MoeMLP, model.config, experts.intermediate_dim)
            block.experts = Chosen(expert() for _ in range(experts.num_experts))
    return model


def split_phimoe() -> nn.Module:
    """Make a Phi-3.5-MoE with a module for each expert."""
    model: Any = phimoe()
    for layer in model.model.layers:
        block = layer.mlp
        del layer.mlp
        block.gate = block.router
        del block.router
        block.experts = Chosen(GatedFeedForward(block.hidden_dim, block.ffn_dim) for _ in range(block.num_experts))
        block.__dict__["router"] = block.gate  # the block calls it so; the state dict must not name it twice
        layer.block_sparse_moe = block
        layer.__dict__["mlp"] = block
    return model


class LinearExperts(nn.Module):
    """The experts of GraniteMoe as in transformers 4, all of them run on every token."""

    def __init__(self, config: GraniteMoeConfig) -> None:
        super().__init__()
        self.top, count = config.num_experts_per_tok, config.num_local_experts
        width, hidden = config.hidden_size, config.intermediate_size
        self.router = nn.ModuleDict({"layer": nn.Linear(width, count, bias=False)})
        self.input_linear = nn.ParameterDict({"weight": torch.zeros(count, 2 * hidden, width)})
        self.output_linear = nn.ParameterDict({"weight": torch.zeros(count, width, hidden)})

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router["layer"](x)
        best, chosen = logits.topk(self.top, -1)
        shares = torch.zeros_like(logits).scatter(-1, chosen, best.softmax(-1))
        gate, up = torch.einsum("bnc,ehc->bneh", x, self.input_linear["weight"]).chunk(2, -1)
        each = torch.einsum("bneh,ech->bnec", functional.silu(gate) * up, self.output_linear["weight"])
        return (each * shares.unsqueeze(-1)).sum(-2)


def linear_granitemoe() -> nn.Module:
    """Make a GraniteMoe as in transformers 4."""
    model: Any = granitemoe()
    for layer in model.model.layers:
        layer.block_sparse_moe = LinearExperts(model.config)
    return model


def qwen2_moe() -> nn.Module:
    sizes = {"num_experts": 11, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28}
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**MODEL, **sizes))


def qwen3_moe() -> nn.Module:
    sizes = {"num_experts": 11, "moe_intermediate_size": 20, "head_dim": 4}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**MODEL, **sizes))


def deepseek_v3() -> nn.Module:
    return DeepseekV3ForCausalLM(DeepseekV3Config(**ROUTED | LATENT, n_group=2, topk_group=1))


def glm4_moe() -> nn.Module:
    return Glm4MoeForCausalLM(Glm4MoeConfig(**ROUTED, n_group=1, topk_group=1, head_dim=4))


def olmoe() -> nn.Module:
    return OlmoeForCausalLM(OlmoeConfig(**MODEL, num_experts=11))


def phimoe() -> nn.Module:
    return PhimoeForCausalLM(PhimoeConfig(**LOCAL | {"num_experts_per_tok": 2}))


def granitemoe() -> nn.Module:
    return GraniteMoeForCausalLM(GraniteMoeConfig(**LOCAL))


def both_ways(fuse: str, unfuse: str, name: str, fused: Model, split: Callable[[], nn.Module]) -> list[Case]:
    """Prove the recipes of both directions, and that a file which transformers wrote is understood as well."""
    return [
        Case(fuse, split, fused, tokens(VOCABULARY, 100), name),
        Case(fuse, fused, fused, tokens(VOCABULARY, 100), f"{name}-file".lstrip("-"), save=save_pretrained),
        Case(unfuse, fused, split, tokens(VOCABULARY, 100), name),
    ]


CASES = [
    case
    for model in (qwen2_moe, qwen3_moe, deepseek_v3, glm4_moe, olmoe)
    for case in both_ways(
        "moe-per_expert-fused", "moe-fused-per_expert", model.__name__, model, partial(with_modules, model)
    )
]
CASES += both_ways("phimoe-per_expert-fused", "phimoe-fused-per_expert", "", phimoe, split_phimoe)
CASES += both_ways("granitemoe-linear-fused", "granitemoe-fused-linear", "", granitemoe, linear_granitemoe)
