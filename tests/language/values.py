"""Tensors for specs, and the values of expressions over them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ckptfix.execute.evaluate import evaluate, from_bytes, to_bytes, torch_dtype
from ckptfix.execute.moves import move_of
from ckptfix.execute.values import Values
from ckptfix.expr import Expr
from ckptfix.formats import Reader, Storage, TensorRef
from ckptfix.formats.base import contiguous_stride
from ckptfix.targets.base import Target
from ckptfix.tensors import DType, Manifest, TensorSpec


def value(spec: TensorSpec, seed: int = 0) -> Tensor:
    numbers = torch.randn(spec.shape, generator=torch.Generator().manual_seed(seed)) * 3
    return numbers.to(torch_dtype(spec.dtype))


def compute(expr: Expr, tensors: Mapping[str, Tensor], initial: Mapping[str, Tensor] | None = None) -> Tensor:
    """Compute with torch; what is only moved or cast is also passed through in blocks, and must come to the same."""
    result = evaluate(expr, tensors.__getitem__, lambda seed: initial or {})
    check_moved(expr, tensors, result)
    return result


def check_moved(expr: Expr, tensors: Mapping[str, Tensor], result: Tensor) -> bool:
    """Hold the bytes that pass through in blocks against a result; tell whether there were any."""
    refs = {key: _ref(tensor) for key, tensor in tensors.items()}
    move = move_of(expr, refs)
    if move is None:
        return False
    with Reader() as reader:
        values = Values(refs, reader, Target("none", Manifest({}), not_buildable="none is there"))
        data = b"".join(map(bytes, values.moved("w", expr, move)))
    if bytes(to_bytes(result)) != data:
        # The two may disagree about the sign and the payload of a NaN.
        found = from_bytes(bytearray(data), expr.spec).to(torch.float64)
        assert torch.equal(found.nan_to_num(7), result.to(torch.float64).nan_to_num(7))
        assert torch.equal(found.isnan(), result.to(torch.float64).isnan())
    return True


def _ref(tensor: Tensor) -> TensorRef:
    dtype = DType.from_torch_name(str(tensor.dtype).removeprefix("torch."))
    assert dtype is not None
    spec = TensorSpec(tuple(tensor.shape), dtype)
    return TensorRef(spec, Storage.holding(bytes(to_bytes(tensor))), 0, contiguous_stride(spec.shape))


def same_bytes(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and bytes(to_bytes(left)) == bytes(to_bytes(right))
