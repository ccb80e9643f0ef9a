"""The edits of the benchmark, as the comprehensions over a state dict that most people write."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, bfloat16

StateDict = dict[str, Tensor]


def same(tensors: StateDict) -> StateDict:
    """Leave everything as it is."""
    return tensors


def rename(tensors: StateDict) -> StateDict:
    """Rename the layers, and drop the head."""
    return {
        key.replace("model.layers.", "blocks.", 1): tensor for key, tensor in tensors.items() if key != "lm_head.weight"
    }


def split(tensors: StateDict) -> StateDict:
    """Split each fused projection into three along the first axis."""
    split = {}
    for key, tensor in tensors.items():
        if ".qkv_proj." in key:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                split[key.replace("qkv_proj", f"{letter}_proj")] = part
        else:
            split[key] = tensor
    return split


def cast(tensors: StateDict) -> StateDict:
    """Turn every tensor into bfloat16."""
    return {key: tensor.to(bfloat16) for key, tensor in tensors.items()}


EDITS: dict[str, Callable[[StateDict], StateDict]] = {"same": same, "rename": rename, "split": split, "cast": cast}
