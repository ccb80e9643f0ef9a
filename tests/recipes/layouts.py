"""Small models in layouts that no installed library has: Meta's Llama, nanoGPT, and GPT-NeoX and Mixtral in parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention


class MetaAttention(nn.Module):
    """Attention as in Meta's llama/model.py: rotary embedding turns neighbouring numbers, as complex ones."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.wq = nn.Linear(width, heads * self.size, bias=False)
        self.wk = nn.Linear(width, kv_heads * self.size, bias=False)
        self.wv = nn.Linear(width, kv_heads * self.size, bias=False)
        self.wo = nn.Linear(heads * self.size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).view(batch, length, heads, self.size).transpose(1, 2)
            for layer, heads in ((self.wq, self.heads), (self.wk, self.kv_heads), (self.wv, self.kv_heads))
        )
        frequencies = 10000.0 ** (-torch.arange(0, self.size, 2).float() / self.size)
        turns = torch.polar(torch.ones(()), torch.outer(torch.arange(length).float(), frequencies))
        q, k = (
            torch.view_as_real(torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous()) * turns).flatten(-2)
            for part in (q, k)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.wo(mixed.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """A gated network under the names that Meta's Llama and Mixtral's experts share."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class MetaBlock(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = MetaAttention(width, heads, kv_heads)
        self.feed_forward = GatedFeedForward(width, hidden)
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.ffn_norm = nn.RMSNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class MetaLlama(nn.Module):
    """A Llama with Meta's names."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(MetaBlock(width, heads, kv_heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.output = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


class NanoAttention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, 2))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class NanoBlock(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, bias=bias)
        self.attn = NanoAttention(width, heads, bias)
        self.ln_2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width, bias=bias), "c_proj": nn.Linear(4 * width, width, bias=bias)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class NanoGPT(nn.Module):
    """A GPT with nanoGPT's names; the head's weight is the embedding's."""

    def __init__(
        self, vocabulary: int, positions: int, width: int, layers: int, heads: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, width),
                "wpe": nn.Embedding(positions, width),
                "h": nn.ModuleList(NanoBlock(width, heads, bias) for _ in range(layers)),
                "ln_f": nn.LayerNorm(width, bias=bias),
            }
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](torch.arange(tokens.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


class SplitAttention(GPTNeoXAttention):
    """GPT-NeoX's attention with a layer each for queries, keys and values."""

    def __init__(self, config: GPTNeoXConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        del self.query_key_value
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))

    def __getattr__(self, name: str) -> Any:
        return self.joined if name == "query_key_value" else super().__getattr__(name)

    def joined(self, x: Tensor) -> Tensor:
        """Give [.., heads * (q, k, v)]."""
        parts = [layer(x).unflatten(-1, (-1, self.head_size)) for layer in (self.q_proj, self.k_proj, self.v_proj)]
        return torch.cat(parts, -1).flatten(-2)


def split_neox(config: GPTNeoXConfig) -> nn.Module:
    """Make a GPT-NeoX with separate projections."""
    model = GPTNeoXForCausalLM(config)
    for number, layer in enumerate(model.gpt_neox.layers):
        layer.attention = SplitAttention(config, number)
    return model


class Experts(nn.Module):
    """The experts of Mixtral as in transformers 4, all of them run on every token."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__()
        self.top = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        sizes = config.hidden_size, config.intermediate_size
        self.experts = nn.ModuleList(GatedFeedForward(*sizes) for _ in range(config.num_local_experts))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(-1)
        chosen = shares.topk(self.top, -1).indices
        shares = shares * torch.zeros_like(shares).scatter(-1, chosen, 1.0)
        shares = shares / shares.sum(-1, keepdim=True)
        return (torch.stack([expert(x) for expert in self.experts], -1) * shares.unsqueeze(-2)).sum(-1)


def split_mixtral(config: MixtralConfig) -> nn.Module:
    """Make a Mixtral with a module for each expert."""
    model = MixtralForCausalLM(config)
    for layer in model.model.layers:
        del layer.mlp
        layer.block_sparse_moe = Experts(config)
        layer.__dict__["mlp"] = layer.block_sparse_moe  # the layer calls it so; the state dict must not name it twice
    return model
