"""A vision transformer that calls its parts by words that mean nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Blat(nn.Module):
    """Attention, queries, keys and values in one layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wug, self.dax = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.wug(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.dax(mixed.transpose(1, 2).flatten(2))


class Tove(nn.Module):
    """The layers after attention."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fep, self.gim = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.gim(functional.gelu(self.fep(x)))


class Mome(nn.Module):
    """A block. The norm that is defined first is the one that comes last."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.quib, self.zorp = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.blat, self.tove = Blat(width, heads), Tove(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.blat(self.zorp(x))
        return x + self.tove(self.quib(x))


class UnseenViT(nn.Module):
    """Patches of 8, twelve blocks, and five classes read off the first token."""

    def __init__(self, image: int = 32, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.bor = nn.Parameter(torch.zeros(1, 1, width))
        self.gov = nn.Parameter(torch.zeros(1, (image // 8) ** 2 + 1, width))
        self.rath = nn.Conv2d(3, width, 8, 8)
        self.mome = nn.ModuleList(Mome(width, heads, 2 * width) for _ in range(12))
        self.mim = nn.LayerNorm(width, eps=1e-6)
        self.jub = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.rath(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.bor.expand(len(images), -1, -1), patches], 1) + self.gov
        for block in self.mome:
            x = block(x)
        return self.jub(self.mim(x)[:, 0])
