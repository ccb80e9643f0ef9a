"""Whole conversions are learned by value, repeated to the bit, and written as a recipe for other sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptfix
from ckptfix.inference.example import find_links
from ckptfix.inference.generalise import generalise
from ckptfix.recipe import load_recipe
from tests.inference.learning import repeat
from tests.recipes.case import Case, State, randomise
from tests.recipes.test_parity import CASES

COMPUTED = ("relative_position_index",)
"""Tables that a constructor computes: no source has them, and they are no constant."""


def moves_numbers(case: Case) -> bool:
    return any(rule.name in ("rearrange", "resize", "take") for rule in load_recipe(case.recipe).rules)


def one_each() -> list[Case]:
    """Take the first case of each recipe that moves numbers within tensors."""
    return list({case.recipe: case for case in reversed(CASES) if moves_numbers(case)}.values())[::-1]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("case", one_each(), ids=str)
def test_shipped_conversions(case: Case, tmp_path: Path) -> None:
    source, target = case.source(), case.target()
    randomise(source)
    randomise(target)
    file = case.save(source, tmp_path)
    example = tmp_path / "example.safetensors"
    ckptfix.adapt(file, target, example, case.recipe, variables=dict(case.variables))
    found = find_links(ckptfix.open(file), ckptfix.open(example))
    assert [key for key in found.unexplained if not key.endswith(COMPUTED)] == []
    assert repeat(tmp_path, file, example, found) == list(found.unexplained)


def build(layers: int, width: int, hidden: int) -> State:
    """Make the weights of a small transformer."""
    state: State = {"embed.weight": torch.randn(11, width)}
    for layer in range(layers):
        state |= {
            f"blocks.{layer}.norm.weight": torch.randn(width),
            f"blocks.{layer}.qkv.weight": torch.randn(3 * width, width),
            f"blocks.{layer}.qkv.bias": torch.randn(3 * width),
            f"blocks.{layer}.fc.weight": torch.randn(width, hidden),
        }
    return state


def convert(state: State) -> State:
    """Convert as a script would: other names, a split, a transposition."""
    made: State = {}
    for key, value in state.items():
        if ".qkv." in key:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                made[key.replace("blocks", "encoder.layers").replace(".qkv.", f".attention.{name}_proj.")] = part
        elif ".fc." in key:
            made[key.replace("blocks", "encoder.layers").replace(".fc.", ".mlp.")] = value.T
        else:
            made[key.replace("blocks", "encoder.layers")] = value
    return made


def write(state: State, path: Path) -> Path:
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def test_a_recipe_learned_from_one_size_converts_another(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = build(layers=3, width=4, hidden=6)
    source, example = write(small, tmp_path / "s.safetensors"), write(convert(small), tmp_path / "e.safetensors")
    have, want = ckptfix.open(source), ckptfix.open(example)
    found = find_links(have, want)
    assert (found.unexplained, found.unused) == ({}, ())
    written = generalise(
        found.links, have.manifest, want.manifest, filled=(), copied={}, dropped=(), source={}, description="learned"
    )
    large = build(layers=12, width=8, hidden=10)
    made = tmp_path / "made.safetensors"
    for state in (small, large):
        source, example = write(state, tmp_path / "s.safetensors"), write(convert(state), tmp_path / "e.safetensors")
        ckptfix.adapt(source, str(example), made, written.values, existing="replace")
        tensors, wanted = load_file(made), convert(state)
        assert tensors.keys() == wanted.keys()
        assert all(torch.equal(tensors[key], value) for key, value in wanted.items())
