"""Every shipped recipe is proven: the converted weights load strictly, and the two models give the same numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptfix
from ckptfix.recipe import load_recipe
from ckptfix.recipes import list_recipes, recipe_path
from tests.recipes import language, sizes, vision, vision_transformers
from tests.recipes.case import Case, State, outputs, randomise

CASES = [*vision.CASES, *vision_transformers.CASES, *language.CASES, *sizes.CASES]
SWAPS = 5
TOLERANCE = 1e-4
INSENSITIVE = ("k_proj.bias", "head.bias", "head_dist.bias", "_classifier.bias")
"""Softmax ignores a bias of all keys; DeiT averages two heads, so that only the sum of their biases counts."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run such small models on one thread, which is faster than to share them out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def difference(have: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, relative to the largest number."""
    assert have.shape == want.shape
    return float((have - want).abs().max() / want.abs().max())


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
    torch.manual_seed(0)
    source, target = case.source(), case.target()
    randomise(source)
    randomise(target)
    inputs = case.inputs()
    file = case.save(source, tmp_path)
    want = case.compared(case.expected(outputs(case.reference(source), inputs)))
    assert torch.isfinite(want).all() and want.std() > 0
    out = tmp_path / "converted.safetensors"
    ckptfix.adapt(file, target, out, case.recipe, variables=dict(case.variables))

    state = load_file(out)
    target.load_state_dict(state, strict=True)
    assert difference(case.compared(outputs(target, inputs)), want) < TOLERANCE

    pairs = list(swaps(state))
    assert pairs
    for first, second in pairs:
        target.load_state_dict({**state, first: state[second], second: state[first]}, strict=True)
        swapped = difference(case.compared(outputs(target, inputs)), want)
        assert not swapped < TOLERANCE, f"{first} and {second} may be swapped unnoticed"


def test_no_recipe_without_proof() -> None:
    assert sorted({case.recipe for case in CASES}) == list(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_valid_described_and_short(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description and recipe.rules
    assert recipe.file == f"{name}.yaml"
    assert len(recipe_path(name).read_text(encoding="utf-8").splitlines()) < 60
