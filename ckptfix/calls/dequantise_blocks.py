"""Undo block-scaled quantisation: each block of a matrix times its scale.

Source: DeepSeek-V3 (2024), section 3.3; checkpoints hold `weight` in F8_E4M3 and `weight_scale_inv`, one number for a
block of `rows` by `columns`. From these two to `weight` in `dtype`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptfix.calls import Arguments, expect, read_arguments
from ckptfix.tensors import DType, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULTS = {"rows": 128, "columns": 128, "dtype": "BF16"}


def infer(specs: Sequence[TensorSpec], args: Arguments) -> list[TensorSpec]:
    """Hold the scales to the number of blocks; the last of a row or column may be smaller."""
    found = read_arguments(args, _DEFAULTS)
    expect(len(specs) == 2, f"dequantise_blocks takes weight and scale, not {len(specs)} tensors")
    weight, scale = (spec.shape for spec in specs)
    expect(len(weight) == 2 and found["rows"] > 0 and found["columns"] > 0, f"{list(weight)} is no matrix of blocks")
    wanted = (-(-weight[0] // found["rows"]), -(-weight[1] // found["columns"]))
    expect(scale == wanted, f"the scale is {list(scale)}, {list(weight)} has {list(wanted)} blocks")
    dtype = DType.from_text(found["dtype"])
    expect(dtype is not None and dtype.kind == "float", f"args.dtype: '{found['dtype']}' is no floating dtype")
    assert dtype is not None
    return [TensorSpec(weight, dtype)]


def compute(tensors: Sequence[Tensor], args: Arguments) -> list[Tensor]:
    """Spread the scales over their blocks and multiply in float32."""
    import torch

    weight, scale = tensors
    found = read_arguments(args, _DEFAULTS)
    spread = scale.float().repeat_interleave(found["rows"], 0).repeat_interleave(found["columns"], 1)
    dtype = DType.from_text(found["dtype"])
    assert dtype is not None and dtype.torch_name is not None
    result = weight.float() * spread[: weight.shape[0], : weight.shape[1]]
    return [result.to(getattr(torch, dtype.torch_name))]
