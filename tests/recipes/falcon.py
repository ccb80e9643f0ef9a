"""Falcon with its fused projection, and with a layer each for queries, keys and values."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import FalconConfig, FalconForCausalLM
from transformers.models.falcon.modeling_falcon import FalconAttention

from tests.recipes.case import Case, tokens

VOCABULARY = 61
HEAD = 4


class SplitAttention(FalconAttention):
    """Falcon's attention without the fused projection."""

    def __init__(self, config: FalconConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        del self.query_key_value
        size = self.num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(self.hidden_size, self.hidden_size, bias=config.bias)
        self.k_proj = nn.Linear(self.hidden_size, size, bias=config.bias)
        self.v_proj = nn.Linear(self.hidden_size, size, bias=config.bias)

    def query_key_value(self, x: Tensor) -> Tensor:
        """Leave the projections to the next step."""
        return x

    def _split_heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give queries, keys and values, [batch, length, heads, size of a head]; one head of keys may serve all."""
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        if self.num_kv_heads == 1:
            return q, k, v
        repeats = self.num_heads // self.num_kv_heads
        return q, k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)


def config(**options: Any) -> FalconConfig:
    sizes = {"hidden_size": 6 * HEAD, "num_attention_heads": 6, "num_hidden_layers": 12, "ffn_hidden_size": 40}
    special = {"bos_token_id": 0, "eos_token_id": 1}
    return FalconConfig(vocab_size=VOCABULARY, alibi=False, **sizes, **special, **options)


def fused(**options: Any) -> nn.Module:
    return FalconForCausalLM(config(**options))


def split(**options: Any) -> nn.Module:
    model = FalconForCausalLM(config(**options))
    for number, block in enumerate(model.transformer.h):
        block.self_attention = SplitAttention(model.config, number)
    return model


def both_ways(name: str, **options: Any) -> list[Case]:
    models = partial(fused, **options), partial(split, **options)
    variables = {"head_dim": HEAD}
    return [
        Case("falcon-fused-split", *models, tokens(VOCABULARY), name, variables),
        Case("falcon-split-fused", *reversed(models), tokens(VOCABULARY), name, variables),
    ]


CASES = [
    *both_ways("one-group", multi_query=True, new_decoder_architecture=False),
    *both_ways("groups", num_kv_heads=2, new_decoder_architecture=True),
    *both_ways("heads", multi_query=False, new_decoder_architecture=False, parallel_attn=False, bias=True),
]
