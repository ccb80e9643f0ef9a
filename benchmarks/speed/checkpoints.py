"""The checkpoints that the benchmark makes, all of float32: shapes first, then files of random values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.speed.scripts.edits import EDITS

LAYERS, PARTS, SHARDS, HEAD, VOCABULARY, BYTES = 33, 49, 4, 64, 1000, 4


@dataclass(frozen=True)
class Checkpoint:
    """Shapes by key; `config` is what transformers and mergekit want to find beside the file."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors together."""
        return sum(BYTES * math.prod(shape) for shape in self.shapes.values())


def llama(size: int) -> Checkpoint:
    """Lay out a language model of 300 tensors and about `size` bytes."""
    hidden = max(1, round(math.sqrt(size / BYTES / LAYERS / 10) / HEAD)) * HEAD
    inner = round((size / BYTES / LAYERS / hidden - 4 * hidden) / 3)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{letter}_proj.weight": (hidden, hidden) for letter in "qkvo"}
        shapes |= {f"{at}.mlp.{gate}_proj.weight": (inner, hidden) for gate in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{at}.{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (VOCABULARY, hidden)}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": hidden // HEAD,
        "num_key_value_heads": hidden // HEAD,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    return Checkpoint(f"llama-{size}", shapes, config)


def fused(size: int) -> Checkpoint:
    """Lay out the same with q, k and v of each layer in one tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, shape in llama(size).shapes.items():
        if ".q_proj." in key:
            shapes[key.replace("q_proj", "qkv_proj")] = (3 * shape[0], shape[1])
        elif ".k_proj." not in key and ".v_proj." not in key:
            shapes[key] = shape
    return Checkpoint(f"fused-{size}", shapes)


def small(keys: int) -> Checkpoint:
    """Lay out many tensors of 4 KB, PARTS of them to a layer, and a head."""
    shapes = {f"model.layers.{n // PARTS}.part{n % PARTS}.weight": (32, 32) for n in range(keys - 1)}
    return Checkpoint(f"small-{keys}", {**shapes, "lm_head.weight": (32, 32)})


def single(size: int) -> Checkpoint:
    """Lay out one tensor of about `size` bytes."""
    return Checkpoint(f"single-{size}", {"embedding.weight": (size // BYTES // 4096, 4096)})


def make(checkpoint: Checkpoint, form: str, folder: Path) -> Path:
    """Write the checkpoint in a form of FORMS, where it is not there yet; give the file, or the folder of shards."""
    home = folder / f"{checkpoint.name}-{form}"
    path = home / FILES[form]
    if not home.exists():
        home.mkdir(parents=True)
        (home / "config.json").write_text(json.dumps(checkpoint.config))
        generator = torch.Generator().manual_seed(0)
        values = {key: torch.rand(shape, generator=generator) for key, shape in checkpoint.shapes.items()}
        FORMS[form](values, path)
    return path


def write_target(checkpoint: Checkpoint, edit: str, path: Path) -> Path:
    """Write what the edit makes of the checkpoint as a lockfile of shapes."""
    blank = {key: torch.empty(shape, device="meta") for key, shape in checkpoint.shapes.items()}
    tensors = {
        key: {"shape": list(tensor.shape), "dtype": "BF16" if tensor.dtype == torch.bfloat16 else "F32"}
        for key, tensor in EDITS[edit](blank).items()
    }
    path.write_text(json.dumps({"schema_version": 1, "tensors": tensors}))
    return path


def _write_file(values: dict[str, Tensor], path: Path) -> None:
    save_file(values, path, metadata={"format": "pt"})


def _write_shards(values: dict[str, Tensor], folder: Path) -> None:
    limit = sum(value.nbytes for value in values.values()) / SHARDS
    weight_map, start = {}, 0
    for key, value in values.items():
        weight_map[key] = f"model-{min(int(start / limit), SHARDS - 1) + 1:05}-of-{SHARDS:05}.safetensors"
        start += value.nbytes
    for shard in dict.fromkeys(weight_map.values()):
        _write_file({key: value for key, value in values.items() if weight_map[key] == shard}, folder / shard)
    index = {"metadata": {"total_size": start}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "safetensors": _write_file,
    "pth": torch.save,
    "shards": _write_shards,
}
FILES = {"safetensors": "model.safetensors", "pth": "pytorch_model.bin", "shards": ""}
"""Where each form lies in its folder: under the names that transformers looks for."""
