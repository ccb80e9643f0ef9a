"""Fold a batch norm into the convolution or linear layer before it.

W' = W * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, as in
`torch.nn.utils.fuse_conv_bn_eval`. From `weight` [out, ...], its `bias` if there is one, and the norm's `weight`,
`bias`, `running_mean` and `running_var` [out] to `weight` and `bias`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptfix.calls import Arguments, expect, read_arguments
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULTS = {"eps": 1e-5}


def infer(specs: Sequence[TensorSpec], args: Arguments) -> list[TensorSpec]:
    """Hold every vector to the number of outputs."""
    read_arguments(args, _DEFAULTS)
    takes = "weight, its bias if there is one, and the norm's weight, bias, running_mean and running_var"
    expect(len(specs) in (5, 6) and len(specs[0].shape) > 1, f"fold_batch_norm takes {takes}")
    outputs = specs[0].shape[:1]
    wrong = [list(spec.shape) for spec in specs[1:] if spec.shape != outputs]
    expect(not wrong, f"a vector is {wrong[0] if wrong else ''}, the weight has {list(outputs)} outputs")
    return [specs[0], TensorSpec(outputs, specs[0].dtype)]


def compute(tensors: Sequence[Tensor], args: Arguments) -> list[Tensor]:
    """Scale the rows, shift the bias."""
    weight, *bias, gamma, beta, mean, var = (tensor.float() for tensor in tensors)
    scale = gamma / (var + read_arguments(args, _DEFAULTS)["eps"]).sqrt()
    rows = scale.reshape(-1, *[1] * (weight.dim() - 1))
    shift = (bias[0] if bias else 0) - mean
    return [(weight * rows).to(tensors[0].dtype), (shift * scale + beta).to(tensors[0].dtype)]
