"""Two small models under two names each: a transformer with fused and split attention, a Llama."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ckptfix.tensors import Manifest
from tests.language.making import manifest

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, width: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (8,), f"{name}.bias": (8,)}


def fused(layers: int = 3) -> Shapes:
    """Give a transformer with queries, keys and values in one tensor."""
    shapes: Shapes = {"wte.weight": (50, 8)}
    for i in range(layers):
        at = f"h.{i}"
        shapes |= norm(f"{at}.ln_1") | linear(f"{at}.attn.qkv", 24, 8) | linear(f"{at}.attn.proj", 8, 8)
        shapes |= norm(f"{at}.ln_2") | linear(f"{at}.mlp.fc1", 32, 8) | linear(f"{at}.mlp.fc2", 8, 32)
    return shapes | norm("ln_f")


def split(layers: int = 3) -> Shapes:
    """Give the same transformer with a tensor each, under other names."""
    shapes: Shapes = {"embeddings.tokens.weight": (50, 8)}
    for i in range(layers):
        at = f"layers.{i}"
        shapes |= norm(f"{at}.norm1")
        for part in ("q", "k", "v", "out"):
            shapes |= linear(f"{at}.attention.{part}_proj", 8, 8)
        shapes |= norm(f"{at}.norm2") | linear(f"{at}.mlp.fc1", 32, 8) | linear(f"{at}.mlp.fc2", 8, 32)
    return shapes | norm("norm")


LLAMA = {
    "self_attn.q_proj": ("attention.wq", (8, 8)),
    "self_attn.k_proj": ("attention.wk", (4, 8)),
    "self_attn.v_proj": ("attention.wv", (4, 8)),
    "self_attn.o_proj": ("attention.wo", (8, 8)),
    "mlp.gate_proj": ("feed_forward.w1", (16, 8)),
    "mlp.down_proj": ("feed_forward.w2", (8, 16)),
    "mlp.up_proj": ("feed_forward.w3", (16, 8)),
    "input_layernorm": ("attention_norm", (8,)),
    "post_attention_layernorm": ("ffn_norm", (8,)),
}
"""A block's tensors by both names."""


def llama(layers: int = 2) -> Shapes:
    """Give a Llama by the names of transformers."""
    shapes: Shapes = {"model.embed_tokens.weight": (50, 8)}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, (_, shape) in LLAMA.items()}
    return shapes | {"model.norm.weight": (8,), "lm_head.weight": (50, 8)}


def meta_llama(layers: int = 2) -> Shapes:
    """Give a Llama by Meta's own names."""
    shapes: Shapes = {"tok_embeddings.weight": (50, 8)}
    for i in range(layers):
        shapes |= {f"layers.{i}.{name}.weight": shape for name, shape in LLAMA.values()}
    return shapes | {"norm.weight": (8,), "output.weight": (50, 8)}


def save(shapes: Shapes, path: Path) -> dict[str, torch.Tensor]:
    """Write random tensors of these shapes."""
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    torch.save(tensors, path)
    return tensors


def lock(shapes: Shapes, path: Path, kinds: Mapping[str, str] | None = None) -> Manifest:
    """Write the lockfile of these shapes."""
    made = manifest(shapes, kinds=dict(kinds or {}))
    path.write_text(json.dumps(made.to_json()))
    return made
