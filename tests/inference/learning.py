"""Learn from an example, and repeat what was learned."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import ckptfix
from ckptfix.inference.example import ExampleResult, find_links
from tests.inference.literal import literal_recipe
from tests.recipes.case import State


def learn(folder: Path, source: State, example: State) -> ExampleResult:
    """Write both sides and compare them."""
    save_file({key: value.contiguous().clone() for key, value in source.items()}, folder / "source.safetensors")
    save_file({key: value.contiguous().clone() for key, value in example.items()}, folder / "example.safetensors")
    return find_links(ckptfix.open(folder / "source.safetensors"), ckptfix.open(folder / "example.safetensors"))


def repeat(folder: Path, source: Path, example: Path, found: ExampleResult) -> list[str]:
    """Carry out what was found key by key; give the keys that differ from the example."""
    recipe = literal_recipe(found, ckptfix.open(source).manifest)
    made = folder / "made.safetensors"
    ckptfix.adapt(source, str(example), made, recipe, gaps="write", existing="replace")
    have, want = load_file(made), load_file(example)
    return [
        key
        for key, value in want.items()
        if key not in have or have[key].dtype != value.dtype or not torch.equal(have[key], value)
    ]


def check(folder: Path, source: State, example: State) -> ExampleResult:
    """Learn, and hold what was learned to every bit of the example."""
    found = learn(folder, source, example)
    assert not found.unexplained
    assert repeat(folder, folder / "source.safetensors", folder / "example.safetensors", found) == []
    return found


def layouts(found: ExampleResult) -> list[str | None]:
    return [link.layout for link in found.links]
