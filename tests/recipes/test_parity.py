"""Every shipped recipe is proven: the converted weights load strictly, and the two models give the same numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ckptfix.recipe import load_recipe
from ckptfix.recipes import list_recipes, recipe_path
from tests.recipes import (
    audio,
    experts,
    falcon,
    language,
    sizes,
    torchtune_layouts,
    transformers_4,
    vision,
    vision_clip,
    vision_convolutions,
    vision_more,
    vision_transformers,
)
from tests.recipes.case import Case, State
from tests.recipes.proof import convert

CASES = [
    *vision.CASES,
    *vision_transformers.CASES,
    *language.CASES,
    *sizes.CASES,
    *vision_clip.CASES,
    *vision_convolutions.CASES,
    *vision_more.CASES,
    *audio.CASES,
    *falcon.CASES,
    *torchtune_layouts.CASES,
    *experts.CASES,
    *transformers_4.CASES,
]
SWAPS = 5
INSENSITIVE = ("k_proj.bias", "head.bias", "head_dist.bias", "_classifier.bias")
"""Softmax ignores a bias of all keys; DeiT averages two heads, so that only the sum of their biases counts."""


def swaps(state: State) -> Iterator[tuple[str, str]]:
    """Pick pairs of floating tensors of one shape that differ: tied and filled ones do not."""
    groups: dict[object, list[str]] = {}
    for key, tensor in state.items():
        if tensor.is_floating_point() and not key.endswith(INSENSITIVE):
            groups.setdefault(tensor.shape, []).append(key)
    chance = random.Random(0)
    pairs: list[tuple[str, str]] = []
    for keys in groups.values():
        first, *others = chance.sample(keys, len(keys))
        pairs += [(first, other) for other in others if not torch.equal(state[first], state[other])][:1]
    yield from chance.sample(pairs, min(SWAPS, len(pairs)))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case: Case, tmp_path: Path) -> None:
    conversion = convert(case, tmp_path)
    assert torch.isfinite(conversion.want).all() and conversion.want.std() > 0
    state = conversion.state
    assert conversion.difference(state) < conversion.allowed

    pairs = list(swaps(state))
    assert pairs
    for first, second in pairs:
        swapped = conversion.difference({**state, first: state[second], second: state[first]})
        assert not swapped < conversion.allowed, f"{first} and {second} may be swapped unnoticed"


def test_no_recipe_without_proof() -> None:
    assert sorted({case.recipe for case in CASES}) == list(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_valid_described_and_short(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description and recipe.rules
    assert recipe.file == f"{name}.yaml"
    assert len(recipe_path(name).read_text(encoding="utf-8").splitlines()) < 60
