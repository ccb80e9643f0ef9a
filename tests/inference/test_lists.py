"""Layers that are put into a numbered list, and the layers behind them that move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from torch import nn

from tests.inference.test_edits import answer, made


def layers(norm: type[nn.Module] | None, *, depth: int = 4, width: int = 64) -> list[nn.Module]:
    found: list[nn.Module] = []
    for _ in range(depth):
        found += [nn.Linear(width, width), *([norm(width)] if norm else []), nn.ReLU()]
    return [*found, nn.Linear(width, 10)]


FRONTS: dict[str, list[nn.Module]] = {
    "another width": [nn.Linear(32, 64)],
    "with its activation": [nn.Linear(32, 64), nn.ReLU()],
    "with its norm": [nn.Linear(100, 64), nn.BatchNorm1d(64), nn.ReLU()],
}


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d, nn.LayerNorm])
@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_all_layers_move_behind_a_new_one_of_another_width(
    front: Sequence[nn.Module], norm: type[nn.Module] | None
) -> None:
    """The numbers that both sides have name different layers, and norms of one width follow their layers."""
    source, target = nn.Sequential(*layers(norm)), nn.Sequential(*front, *layers(norm))
    for in_order in (True, False):
        found = made(answer(source, target, in_order=in_order))
        for key in source.state_dict():
            number, rest = key.split(".", 1)
            if not key.endswith("tracked"):
                assert found[f"{int(number) + len(front)}.{rest}"] == (key,)
        assert not any(key.startswith(("0.", "1.num")) for key in found)


def test_the_bias_of_a_new_layer_is_new_with_its_weight() -> None:
    """Biases of its length are made of others, and none of them is its own."""
    found = answer(nn.Sequential(*layers(None)), nn.Sequential(nn.Linear(32, 64), *layers(None)))
    assert found.filled == ["0.weight", "0.bias"]
    assert not found.unresolved
    assert not found.ambiguous


def test_of_equal_layers_it_stays_open_which_is_new() -> None:
    """A layer like all others, in front or behind: nothing tells."""
    found = answer(nn.Sequential(*layers(None)), nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 64), *layers(None)))
    assert {key for key in made(found) if key.endswith("weight")} == {"10.weight"}


def test_layers_that_one_alignment_alone_allows_are_told() -> None:
    """Convolutions of three widths, one more of the first two widths each: the first of each is where it was."""

    def convs(*widths: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Conv2d(*pair, 3) for pair in pairwise(widths)))

    found = made(answer(convs(3, 8, 16, 32, 32, 5), convs(3, 8, 8, 16, 16, 32, 32, 32, 5)))
    pairs = {key: source for key, (source,) in found.items() if key.endswith("weight")}
    assert pairs == {"0.weight": "0.weight", "2.weight": "1.weight", "4.weight": "2.weight", "7.weight": "4.weight"}
