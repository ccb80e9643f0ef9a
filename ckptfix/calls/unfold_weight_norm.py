"""Write a weight as weight normalisation does: its lengths, and itself as the direction.

Source: `torch.nn.utils.weight_norm`, which starts from g = |v|. From `weight` to `weight_g` and `weight_v`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptfix.calls import Arguments, expect, read_arguments
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULTS = {"dim": 0}


def infer(specs: Sequence[TensorSpec], args: Arguments) -> list[TensorSpec]:
    """Give the shapes of lengths and direction."""
    expect(len(specs) == 1, f"unfold_weight_norm takes one weight, not {len(specs)} tensors")
    shape, dim = specs[0].shape, read_arguments(args, _DEFAULTS)["dim"]
    expect(0 <= dim < len(shape), f"args.dim: {list(shape)} has no dimension {dim}")
    lengths = tuple(extent if axis == dim else 1 for axis, extent in enumerate(shape))
    return [TensorSpec(lengths, specs[0].dtype), specs[0]]


def compute(tensors: Sequence[Tensor], args: Arguments) -> list[Tensor]:
    """Measure each direction."""
    (weight,) = tensors
    others = [axis for axis in range(weight.dim()) if axis != read_arguments(args, _DEFAULTS)["dim"]]
    wide = weight.float()
    norm = wide.square().sum(others, keepdim=True).sqrt() if others else wide.abs()
    return [norm.to(weight.dtype), weight]
