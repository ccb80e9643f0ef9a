"""Compute expressions with torch, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ckptfix.digest import hash_document
from ckptfix.errors import RuleError, TargetBuildError
from ckptfix.execute.arrange import arrange
from ckptfix.execute.blocks import crop, on_block, pad
from ckptfix.execute.resample import rechannel, resample
from ckptfix.expr import (
    Block,
    Cast,
    Channels,
    Compute,
    Constant,
    Crop,
    Expr,
    Initial,
    Normal,
    Pad,
    Read,
    Rearrange,
    Resize,
    Take,
)
from ckptfix.tensors import DType, Shape, TensorSpec

Load = Callable[[str], Tensor]
"""Gives a source tensor by its key."""
InitialValues = Callable[[int], Mapping[str, Tensor]]
"""Gives the state dict of the target built from a seed."""


def torch_dtype(dtype: DType) -> torch.dtype:
    """Give torch's dtype. Raises RuleError where torch has none, or packs several elements into one of its own."""
    found = getattr(torch, dtype.torch_name or "", None)
    if not isinstance(found, torch.dtype) or dtype.bits < 8:
        raise RuleError(f"torch {torch.__version__} computes with no dtype {dtype}")
    return found


def from_bytes(data: bytearray, spec: TensorSpec) -> Tensor:
    """View contiguous little-endian bytes as a tensor."""
    dtype = torch_dtype(spec.dtype)
    if spec.numel == 0:
        return torch.empty(spec.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(spec.shape)


def to_bytes(tensor: Tensor) -> memoryview:
    """Give the contiguous little-endian bytes of a tensor."""
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # A tensor of one element or none is contiguous with any strides, which `view` refuses.
    return whole.as_strided((whole.numel(),), (1,)).view(torch.uint8).numpy().data


def evaluate(expr: Expr, load: Load, initial: InitialValues) -> Tensor:
    """Compute an expression. Raises RuleError where an op's own function gives another shape than it planned."""
    dtype = torch_dtype(expr.spec.dtype)
    match expr:
        case Read(key):
            return load(key)
        case Constant(spec, value):
            return torch.full(spec.shape, value, dtype=dtype)
        case Normal(spec, key, std, seed):
            return _normal(spec, key, std, seed).to(dtype)
        case Initial(spec, key, seed):
            return _initial_value(initial(seed), key, spec).to(dtype)
        case Cast(source):
            return evaluate(source, load, initial).to(dtype)
        case Resize(source, block=block):
            return on_block(evaluate(source, load, initial), block, lambda part: resample(part, expr), _concatenate)
        case Channels(source, block=block):
            return on_block(evaluate(source, load, initial), block, lambda part: rechannel(part, expr), _concatenate)
        case Crop(source, block=block):
            return on_block(evaluate(source, load, initial), block, lambda part: crop(part, block), _concatenate)
        case Pad(source, block=block, filler=None):
            tensor = evaluate(source, load, initial)
            return on_block(tensor, block, lambda part: pad(part, block, _rows(expr), _concatenate), _concatenate)
        case Pad(source, block=block, filler=filler) if filler is not None:
            return _overlay(evaluate(source, load, initial), evaluate(filler, load, initial).to(dtype), block)
        case Rearrange(terms):
            return arrange(expr, [evaluate(term.source, load, initial) for term in terms], _concatenate)
        case Take(source, dim, rows):
            return evaluate(source, load, initial).index_select(dim, torch.tensor(rows, dtype=torch.int64))
        case Compute(parts, spec, function, label):
            result = function(*(evaluate(part, load, initial) for part in parts))
            if not isinstance(result, Tensor) or tuple(result.shape) != spec.shape or result.dtype != dtype:
                raise RuleError(f"{label} planned {spec} and made {_describe(result)}")
            return result
    raise AssertionError(expr)


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _normal(spec: TensorSpec, key: str, std: float, seed: int) -> Tensor:
    """Draw for a key, so that the numbers do not depend on which other keys are filled."""
    generator = torch.Generator().manual_seed(int(hash_document([seed, key])[:15], 16))
    return torch.randn(spec.shape, generator=generator) * std


def _initial_value(values: Mapping[str, Tensor], key: str, spec: TensorSpec) -> Tensor:
    value = values.get(key)
    if value is None or tuple(value.shape) != spec.shape or value.is_meta:
        found = "is not there" if value is None else "is on the meta device" if value.is_meta else _describe(value)
        raise TargetBuildError(f"'{key}' should be {spec}, but in the built target it {found}")
    return value.detach().cpu()


def _concatenate(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(tensors), dim)


def _rows(expr: Pad) -> Callable[[Tensor, int, Shape], Tensor]:
    """Give what makes the rows that a pad adds."""

    def rows(part: Tensor, axis: int, shape: Shape) -> Tensor:
        if expr.value == "mean":
            return part.to(torch.float32).mean(axis, keepdim=True).to(part.dtype).expand(shape)
        return torch.full(shape, expr.value, dtype=part.dtype)

    return rows


def _overlay(tensor: Tensor, base: Tensor, block: Block) -> Tensor:
    """Lay the present rows over the target's own. The part before and after the block comes from the tensor."""

    def change(part: Tensor) -> Tensor:
        grown = list(part.shape)
        for axis, size in zip(block.axes, block.sizes, strict=True):
            grown[axis] = size
        length = base.shape[block.dim] - (tensor.shape[block.dim] - (block.stop - block.start))
        result = base.narrow(block.dim, block.start, length).reshape(grown).clone()
        result[tuple(slice(0, extent) for extent in part.shape)] = part
        return result

    return on_block(tensor, block, change, _concatenate)
