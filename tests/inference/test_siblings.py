"""Modules that are equal inside: which is which, their names must tell, not the order in which they are defined."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from torch import nn

from tests.inference.test_edits import answer, made, open_keys

KINDS = ("weight", "bias")


def branch(width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width))


def network(*names: str) -> nn.ModuleDict:
    trunk: Mapping[str, nn.Module] = {"trunk": nn.Linear(4, 8)}
    return nn.ModuleDict({**trunk, **{name: branch() for name in names}, "out": nn.Linear(16, 3)})


@pytest.mark.parametrize("names", [("critic", "actor"), ("actor", "critic")])
def test_the_order_of_equal_branches_does_not_tell_which_is_which(names: tuple[str, str]) -> None:
    found = answer(network("policy", "value"), network(*names))
    assert set(open_keys(found)) == {f"{name}.{layer}.{kind}" for name in names for layer in (0, 2) for kind in KINDS}
    assert set(made(found)) == {f"{name}.{kind}" for name in ("trunk", "out") for kind in KINDS}
    doubt = next(doubt for doubt in found.ambiguous if doubt.target == f"{names[0]}.0.weight")
    assert {*doubt.candidates, *doubt.beside} == {"policy.0.weight", "value.0.weight"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("query_net", "key_net"), ("q", "k")),
        (("left_eye", "right_eye"), ("net_l", "net_r")),
        (("image_tower", "text_tower"), ("visual", "language")),
        (("tower1", "tower2"), ("branch_1", "branch_2")),
    ],
)
def test_names_that_tell_are_believed(old: tuple[str, str], new: tuple[str, str], order: tuple[int, int]) -> None:
    found = made(answer(network(*old), network(*(new[i] for i in order))))
    for one, other in zip(old, new, strict=True):
        assert found.get(f"{other}.0.weight", (f"{one}.0.weight",)) == (f"{one}.0.weight",)
    if order == (0, 1):
        assert f"{new[0]}.0.weight" in found


def test_single_layers_are_told_by_their_names_too() -> None:
    source, target = (
        nn.ModuleDict({name: nn.Linear(8, 8) for name in names} | {"head": nn.Linear(8, 3)})
        for names in (("mean_net", "spread_net"), ("loc", "width"))
    )
    assert set(open_keys(answer(source, target))) == {f"{name}.{kind}" for name in ("loc", "width") for kind in KINDS}


def test_a_target_whose_every_name_the_checkpoint_has_is_that_part_of_it() -> None:
    """What is beside goes unused: nothing is guessed where each tensor has its namesake."""
    target = network("left", "right")
    found = answer(nn.ModuleDict({**network("left", "right"), "more": branch()}), target)
    assert made(found) == {key: (key,) for key in target.state_dict()}
    assert sorted(found.unused) == sorted(f"more.{layer}.{kind}" for layer in (0, 2) for kind in KINDS)


def test_input_channels_are_not_resized_where_a_tensor_has_its_shape() -> None:
    """Convolutions of two equal encoders are open; none becomes the first of the other by other channels."""

    def encoder() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)
        )

    def both(*names: str) -> nn.ModuleDict:
        return nn.ModuleDict({**{name: encoder() for name in names}, "fuse": nn.Linear(32, 5)})

    found = answer(both("one_encoder", "other_encoder"), both("encoder_x", "encoder_y"))
    assert not [link for link in found.links if link.resize]
    assert set(made(found)) == {"fuse.weight", "fuse.bias"} | {key for key in made(found) if key.endswith("tracked")}
