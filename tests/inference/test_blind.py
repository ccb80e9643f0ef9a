"""Names that nobody has seen: what is then resolved, by shapes and order alone, is right."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from ckptfix.expr import Read
from tests.inference.judging import judge, shipped
from tests.inference.test_shipped import FIRST

_WORD = re.compile(r"[A-Za-z]+")
RECIPES = [
    "timm-torchvision-resnet",
    "timm-torchvision-convnext",
    "gpt_neox-v4-v5",
    "timm-transformers-swin",
    "nanogpt-transformers-gpt2",
    "mixtral-per_expert-fused",
]


def blind(keys: Iterable[str], seed: int) -> dict[str, str]:
    """Exchange every word for one that no key has; numbers and dots stay."""
    chance = random.Random(seed)
    texts = list(keys)
    seen = {word.lower() for key in texts for word in _WORD.findall(key)}
    words: dict[str, str] = {}

    def exchange(found: re.Match[str]) -> str:
        while found[0] not in words:
            word = "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(4))
            if word not in seen:
                seen.add(word)
                words[found[0]] = word
        return words[found[0]]

    return {key: _WORD.sub(exchange, key) for key in texts}


@pytest.mark.parametrize("order", ["defined", "sorted"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_resolved_is_wrong(recipe: str, order: str, tmp_path: Path) -> None:
    truth = shipped(FIRST[recipe], tmp_path)
    checkpoint = truth.job.checkpoint
    state = {key: truth.values.tensor(key, Read(key, spec)) for key, spec in checkpoint.manifest.items()}
    for seed in range(3):
        names = blind(state, seed)
        keys = sorted(state, key=names.__getitem__) if order == "sorted" else list(state)
        torch.save({names[key]: state[key] for key in keys}, tmp_path / "blind.pth")
        judgement = judge(tmp_path / "blind.pth", truth)
        assert len(set(names.values())) == len(state)
        assert judgement.suggestion.resolved
        assert judgement.wrong == []
