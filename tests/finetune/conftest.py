"""A small network with BatchNorm and dropout, and data that it learns in seconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ckptfix.proof.data.base import Data
from ckptfix.proof.data.load import load_data


class SmallNet(nn.Module):
    """Two convolutions with BatchNorm, then a head: `[n, 1, 16, 16]` -> `[n, classes]`."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16 * 9, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(x).flatten(1)))


def seeded(make: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Make the `build` that `finetune` wants."""

    def build(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make()

    return build


@pytest.fixture
def net() -> nn.Module:
    return seeded(SmallNet)(0)


@pytest.fixture
def build() -> Callable[[int], nn.Module]:
    return seeded(SmallNet)


@pytest.fixture
def head() -> frozenset[str]:
    """The keys that a receipt would call filled."""
    return frozenset({"head.weight", "head.bias"})


@pytest.fixture(scope="session")
def digits() -> Data:
    return load_data("digits", channels=1, size=16, classes=4, train_per_class=10, test_per_class=25)
