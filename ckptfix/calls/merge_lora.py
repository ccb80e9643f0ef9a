"""Merge a low-rank adapter into its weight: W + scale * B A.

Source: Hu et al., LoRA (2021), equation 3; `scale` is alpha / r. From `weight` [out, in], `lora_A` [r, in] and `lora_B`
[out, r] to `weight`. The sum is taken in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptfix.calls import Arguments, expect, read_arguments
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULTS = {"scale": 1.0}


def infer(specs: Sequence[TensorSpec], args: Arguments) -> list[TensorSpec]:
    """Hold the three shapes to each other."""
    read_arguments(args, _DEFAULTS)
    expect(len(specs) == 3, f"merge_lora takes weight, lora_A and lora_B, not {len(specs)} tensors")
    weight, a, b = (spec.shape for spec in specs)
    fits = len(a) == len(b) == 2 and a[0] == b[1] and weight == (b[0], a[1])
    expect(fits, f"{list(weight)}, {list(a)} and {list(b)} are not weight, lora_A and lora_B")
    return [specs[0]]


def compute(tensors: Sequence[Tensor], args: Arguments) -> list[Tensor]:
    """Add the product of the factors to the weight."""
    weight, a, b = tensors
    merged = weight.float() + read_arguments(args, _DEFAULTS)["scale"] * (b.float() @ a.float())
    return [merged.to(weight.dtype)]
