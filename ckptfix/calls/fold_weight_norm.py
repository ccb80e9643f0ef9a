"""Fold weight normalisation: g * v / |v|.

Source: Salimans and Kingma (2016), equation 2, with the norm over every dimension but `dim`, as
`torch.nn.utils.weight_norm` takes it. From `weight_g` and `weight_v` to `weight`.
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
    """Give the direction's shape."""
    expect(len(specs) == 2, f"fold_weight_norm takes weight_g and weight_v, not {len(specs)} tensors")
    g, v = (spec.shape for spec in specs)
    dim = read_arguments(args, _DEFAULTS)["dim"]
    expect(0 <= dim < len(v), f"args.dim: {list(v)} has no dimension {dim}")
    wanted = tuple(extent if axis == dim else 1 for axis, extent in enumerate(v))
    expect(g == wanted, f"weight_g is {list(g)}, along dimension {dim} of {list(v)} it would be {list(wanted)}")
    return [specs[1]]


def compute(tensors: Sequence[Tensor], args: Arguments) -> list[Tensor]:
    """Scale each direction to its length."""
    g, v = tensors
    others = [axis for axis in range(v.dim()) if axis != read_arguments(args, _DEFAULTS)["dim"]]
    wide = v.float()
    norm = wide.square().sum(others, keepdim=True).sqrt() if others else wide.abs()
    return [(wide * (g.float() / norm)).to(v.dtype)]
