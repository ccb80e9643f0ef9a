"""Give a part of a tensor other extents: interpolate it, evenly or not, project patch kernels, count channels anew.

Sums of products are taken in a fixed order, in float64 over numbers that are float32, whose products are exact there:
the bytes depend neither on the number of threads nor on how a library multiplies matrices.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from ckptfix.expr import Channels, Resize
from ckptfix.tensors import Shape


def resample(part: Tensor, expr: Resize) -> Tensor:
    """Work along the axes of the expression's block, in float32; give the dtype back."""
    axes, sizes = expr.block.axes, expr.block.sizes
    order = [axis for axis in range(part.dim()) if axis not in axes] + list(axes)
    moved = part.to(torch.float32).permute(order)
    kept = moved.shape[: part.dim() - len(axes)]
    grids = moved.reshape(-1, *moved.shape[part.dim() - len(axes) :])
    match expr.mode:
        case "pinv":
            result = _project(grids, sizes, antialias=expr.antialias)
        case "geometric":
            result = _stretch(grids, sizes)
        case _:
            result = _interpolate(grids, expr)
    back = sorted(range(part.dim()), key=order.__getitem__)
    return result.reshape(*kept, *sizes).permute(back).to(part.dtype)


def rechannel(part: Tensor, expr: Channels) -> Tensor:
    """Give the part other channels along one axis: the old ones in turn, or each their sum or mean.

    `tile` with `rescale`, and `sum` to one channel, are what timm's `adapt_input_conv` does.
    """
    [axis], [new] = expr.block.axes, expr.block.sizes
    old = part.shape[axis]
    if expr.mode == "tile":
        tiled = torch.cat([part] * -(-new // old), axis).narrow(axis, 0, new)
        return _scaled(tiled.to(torch.float32), old / new).to(part.dtype) if expr.rescale else tiled
    first, *others = part.to(torch.float32).to(torch.float64).unbind(axis)
    total = sum(others, first).unsqueeze(axis)
    whole = 1.0 if expr.mode == "sum" else 1 / old
    shape = [new if place == axis else extent for place, extent in enumerate(part.shape)]
    return _scaled(total, 1 / new if expr.rescale else whole).to(part.dtype).expand(shape)


def _scaled(numbers: Tensor, factor: float) -> Tensor:
    """Multiply in float64, round once to float32."""
    return (numbers.to(torch.float64) * factor).to(torch.float32)


def _interpolate(grids: Tensor, expr: Resize) -> Tensor:
    """Interpolate grids [n, ...] as `torch.nn.functional.interpolate` defines it."""
    return functional.interpolate(
        grids[None],
        size=expr.block.sizes,
        mode=expr.mode,
        align_corners=expr.align_corners if expr.mode != "nearest" else None,
        antialias=expr.antialias,
    )


def _project(kernels: Tensor, new: Shape, *, antialias: bool) -> Tensor:
    """Project kernels [n, h, w] so that they answer to a resized patch as they did to the patch itself.

    With B the matrix that resizes a patch, w' = pinv(B^T) w is the least-squares solution of <x, w> = <B x, w'> for
    patches x of white noise: FlexiViT (Beyer et al., arXiv:2212.08013, section 3.4). B is bicubic, as in timm's
    `resample_patch_embed`.
    """
    flat = kernels.flatten(1).to(torch.float64)
    weights = _projection(tuple(kernels.shape[1:]), new, antialias=antialias)
    total = torch.zeros(len(flat), weights.shape[1], dtype=torch.float64)
    for cell, row in enumerate(weights):
        total.addcmul_(flat[:, cell : cell + 1], row)
    return total.to(torch.float32)


@lru_cache(maxsize=8)
def _projection(old: Shape, new: Shape, *, antialias: bool) -> Tensor:
    """Compute pinv(B), the transpose of pinv(B^T): [cells of the old kernel, cells of the new one].

    Its numbers are float32 in a float64 tensor. Singular values that float32 could not tell from 0 are taken as 0.
    """
    cells = math.prod(old)
    basis = torch.eye(cells, dtype=torch.float64).reshape(1, cells, *old)
    resized = functional.interpolate(basis, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    matrix = resized.reshape(cells, -1).T
    rtol = max(matrix.shape) * torch.finfo(torch.float32).eps
    inverse: Tensor = torch.linalg.pinv(matrix, rtol=rtol)
    return inverse.to(torch.float32).to(torch.float64)


def _stretch(tables: Tensor, new: Shape) -> Tensor:
    """Read tables [n, ...] of relative positions at new distances, between old ones that grow geometrically.

    Along each axis the old rows lie at 0, 1, 1 + q, 1 + q + q^2, ... on both sides of the middle, with q such that the
    last reaches the new border: near ones stay near. Linear in between; beyond the last row, the last row. As in BEiT
    (Bao et al., arXiv:2106.08254; `beit/run_class_finetuning.py` of microsoft/unilm, with splines), and timm's
    `resize_rel_pos_bias_table` (linear, as here).
    """
    result = tables.to(torch.float64)
    for axis, size in enumerate(new, 1):
        rows, weights = _between(_places(tables.shape[axis], size), size)
        after = weights.reshape(-1, *[1] * (tables.dim() - 1 - axis))
        left, right = result.index_select(axis, rows), result.index_select(axis, rows + 1)
        result = left * (1 - after) + right * after
    return result.to(torch.float32)


def _places(old: int, new: int) -> list[float]:
    """Give the places of the old rows, the middle at 0, in units of the new distance."""
    q = _growth(old // 2, new // 2)
    right = list(accumulate(q**step for step in range(old // 2)))
    return [-place for place in reversed(right)] + [0.0] + right


def _growth(count: int, reach: int) -> float:
    """Find q where 1 + q + ... + q^(count - 1) is `reach`: by bisection between 1.01 and 1.5, to 1e-6, as in BEiT."""
    low, high, q = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (q**count - 1) / (q - 1) > reach else (q, high)
    return q


def _between(places: Sequence[float], new: int) -> tuple[Tensor, Tensor]:
    """Say after which old row each new one lies, and how far it is to the next: 0 to 1, rounded to 2^-24."""
    rows, weights = [], []
    for place in range(-(new // 2), new // 2 + 1):
        row = min(max(bisect_left(places, place) - 1, 0), len(places) - 2)
        rows.append(row)
        way = (place - places[row]) / (places[row + 1] - places[row])
        weights.append(round(min(max(way, 0.0), 1.0) * 2**24) / 2**24)
    return torch.tensor(rows), torch.tensor(weights, dtype=torch.float64)
