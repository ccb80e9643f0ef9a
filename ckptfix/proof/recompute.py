"""Compute expressions a second time, in other words than the writer's, to compare byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ckptfix.digest import hash_document
from ckptfix.execute.evaluate import torch_dtype
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
from ckptfix.proof.coordinates import rearrange
from ckptfix.proof.resample import sample, spread


def recompute(expr: Expr, source: Mapping[str, Tensor], initial: Callable[[int], Mapping[str, Tensor]]) -> Tensor:
    """Compute an expression over tensors that are already loaded."""
    match expr:
        case Read(key):
            return source[key]
        case Constant(spec, value):
            return torch.zeros(spec.shape, dtype=torch_dtype(spec.dtype)).fill_(value)
        case Normal(spec, key, std, seed):
            generator = torch.Generator().manual_seed(int(hash_document([seed, key])[:15], 16))
            drawn = torch.empty(spec.shape).normal_(generator=generator)
            return drawn.mul(std).type(torch_dtype(spec.dtype))
        case Initial(spec, key, seed):
            return initial(seed)[key].type(torch_dtype(spec.dtype))
        case Cast(inner, dtype):
            return recompute(inner, source, initial).type(torch_dtype(dtype))
        case Resize(inner):
            return _replace_block(recompute(inner, source, initial), expr.block, lambda part: sample(part, expr))
        case Channels(inner):
            return _replace_block(recompute(inner, source, initial), expr.block, lambda part: spread(part, expr))
        case Crop(inner, block=block):
            return _replace_block(recompute(inner, source, initial), block, lambda part: part[_leading(part, block)])
        case Pad(inner, block=block):
            filler = None if expr.filler is None else recompute(expr.filler, source, initial)
            return _replace_block(
                recompute(inner, source, initial), block, lambda part: _grow(part, expr), filler=filler
            )
        case Rearrange(terms):
            return rearrange(expr, [recompute(term.source, source, initial) for term in terms])
        case Take(inner, dim, rows):
            return torch.stack(
                [part for row in rows for part in [recompute(inner, source, initial).select(dim, row)]], dim
            )
        case Compute(parts, function=function):
            result = function(*(recompute(part, source, initial) for part in parts))
            assert isinstance(result, Tensor)
            return result
    raise AssertionError(expr)


def _replace_block(
    tensor: Tensor, block: Block, change: Callable[[Tensor], Tensor], filler: Tensor | None = None
) -> Tensor:
    before, part, after = tensor.tensor_split((block.start, block.stop), block.dim)
    changed = change(part.reshape(block.inner))
    if filler is not None:
        stop = filler.shape[block.dim] - after.shape[block.dim]
        under = filler.tensor_split((block.start, stop), block.dim)[1].reshape(changed.shape).type(tensor.dtype)
        present = torch.zeros(changed.shape, dtype=torch.bool)
        present[tuple(slice(extent) for extent in block.inner)] = True
        changed = torch.where(present, changed, under)
    folded = changed.reshape(block.shape)
    return folded if part.shape == tensor.shape else torch.cat((before, folded, after), block.dim)


def _leading(part: Tensor, block: Block) -> tuple[slice, ...]:
    sizes = dict(zip(block.axes, block.sizes, strict=True))
    return tuple(slice(sizes.get(axis, extent)) for axis, extent in enumerate(part.shape))


def _grow(part: Tensor, expr: Pad) -> Tensor:
    sizes = dict(zip(expr.block.axes, expr.block.sizes, strict=True))
    grown = torch.empty([sizes.get(axis, extent) for axis, extent in enumerate(part.shape)], dtype=part.dtype)
    if expr.value == "mean":
        grown.copy_(part.float().mean(expr.block.axes[0], keepdim=True).type(part.dtype))
    else:
        grown.fill_(expr.value)
    grown[tuple(slice(extent) for extent in part.shape)] = part
    return grown
