"""The second path to what `execute.resample` does, in other words."""

from __future__ import annotations

from functools import lru_cache, reduce

import torch
from torch import Tensor
from torch.nn import functional

from ckptfix.expr import Channels, Resize


def sample(part: Tensor, expr: Resize) -> Tensor:
    """Give the part its new extents along the axes of the expression's block."""
    axes = expr.block.axes
    last = tuple(range(-len(axes), 0))
    moved = part.float().movedim(axes, last)
    flat = moved.flatten(0, -len(axes) - 1) if moved.dim() > len(axes) else moved.unsqueeze(0)
    ways = {"pinv": _answers, "geometric": _read_between}
    sampled = ways.get(expr.mode, _interpolated)(flat, expr)
    kept = moved.shape[: moved.dim() - len(axes)]
    return sampled.reshape(*kept, *expr.block.sizes).movedim(last, axes).type(part.dtype)


def _interpolated(flat: Tensor, expr: Resize) -> Tensor:
    corners = {} if expr.mode == "nearest" else {"align_corners": expr.align_corners, "antialias": expr.antialias}
    return functional.interpolate(flat.unsqueeze(0), expr.block.sizes, mode=str(expr.mode), **corners)[0]


def _answers(kernels: Tensor, expr: Resize) -> Tensor:
    """Project patch kernels [n, h, w]: each old cell, one after the other, gives its share to all new ones."""
    _, height, width = kernels.shape
    shares = _shares(height, width, *expr.block.sizes, antialias=expr.antialias)
    cells = kernels.double().reshape(-1, height * width).unbind(1)
    total = torch.zeros(shares.shape[0], len(kernels), dtype=torch.float64)
    for cell, share in zip(cells, shares.unbind(1), strict=True):
        total = total + share.outer(cell)
    return total.T.float()


@lru_cache(maxsize=8)
def _shares(height: int, width: int, new_height: int, new_width: int, *, antialias: bool) -> Tensor:
    """Say what share of each old cell each new one gets: [new cells, old cells], rounded to float32."""
    dots = torch.zeros(1, height * width, height, width, dtype=torch.float64)
    for cell in range(height * width):
        dots[0, cell, cell // width, cell % width] = 1
    images = functional.interpolate(dots, (new_height, new_width), mode="bicubic", antialias=antialias)
    resize = images[0].flatten(1).T
    smallest = max(resize.shape) * torch.finfo(torch.float32).eps
    shares: Tensor = torch.linalg.pinv(resize, rtol=smallest).T
    return shares.float().double()


def _read_between(tables: Tensor, expr: Resize) -> Tensor:
    """Read relative-position tables [n, ...] row by row, along one axis after the other."""
    read = tables.double()
    for axis, size in enumerate(expr.block.sizes, 1):
        at = _distances(tables.shape[axis], size)
        rows = []
        for place in torch.arange(size, dtype=torch.float64) - size // 2:
            upper = int((at < place).sum().clamp(1, len(at) - 1))
            share = ((place - at[upper - 1]) / (at[upper] - at[upper - 1])).clamp(0, 1).mul(2**24).round() / 2**24
            rows.append(read.select(axis, upper - 1) * (1 - share) + read.select(axis, upper) * share)
        read = torch.stack(rows, axis)
    return read.float()


def _distances(old: int, new: int) -> Tensor:
    """Give the distances from the middle that the old rows stand for, which grow by a constant factor."""
    powers = torch.arange(old // 2, dtype=torch.float64)
    smallest, width, factor = 1.01, 0.49, 1.01
    while width > 1e-6:
        width /= 2
        factor = smallest + width
        if float(factor**powers @ torch.ones_like(powers)) <= new // 2:
            smallest = factor
    right = (factor**powers).cumsum(0)
    return torch.cat([-right.flip(0), torch.zeros(1, dtype=torch.float64), right])


def spread(part: Tensor, expr: Channels) -> Tensor:
    """Give each new channel what it gets of the old ones, one after the other."""
    axis, count = expr.block.axes[0], expr.block.sizes[0]
    olds = part.unbind(axis)
    if expr.mode == "tile" and not expr.rescale:
        return torch.stack([olds[place % len(olds)] for place in range(count)], axis)
    share = {"tile": len(olds), "sum": 1, "mean": 1}[expr.mode] / count
    if not expr.rescale:
        share = {"sum": 1.0, "mean": 1 / len(olds)}[expr.mode]
    numbers = [old.float().double() for old in olds]
    if expr.mode != "tile":
        numbers = [reduce(torch.add, numbers)]
    news = [(numbers[place % len(numbers)] * share).float().type(part.dtype) for place in range(count)]
    return torch.stack(news, axis)
