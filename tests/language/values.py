"""Tensors for specs, and the values of expressions over them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ckptfix.execute.evaluate import evaluate, to_bytes, torch_dtype
from ckptfix.expr import Expr
from ckptfix.tensors import TensorSpec


def value(spec: TensorSpec, seed: int = 0) -> Tensor:
    numbers = torch.randn(spec.shape, generator=torch.Generator().manual_seed(seed)) * 3
    return numbers.to(torch_dtype(spec.dtype))


def compute(expr: Expr, tensors: Mapping[str, Tensor], initial: Mapping[str, Tensor] | None = None) -> Tensor:
    return evaluate(expr, tensors.__getitem__, lambda seed: initial or {})


def same_bytes(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and bytes(to_bytes(left)) == bytes(to_bytes(right))
