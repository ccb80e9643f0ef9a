"""Targets that are not the network of the checkpoint: nothing is taken from another place because its shape fits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torchvision
from torch import nn

from tests.inference.test_edits import answer, made


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name)  # type: ignore[no-any-return]


Build = Callable[[], nn.Module]

PAIRS: dict[str, tuple[Build, Build]] = {
    "half the width": (lambda: timm_model("mobilenetv2_100"), lambda: timm_model("mobilenetv2_050")),
    "another kind of block": (torchvision.models.resnet18, torchvision.models.resnet50),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_has_a_namesake_of_another_shape_goes_nowhere_else(pair: tuple[Build, Build]) -> None:
    source, target = (build() for build in pair)
    found = answer(source, target)
    assert {key: source for key, source in made(found).items() if source != (key,)} == {}
    assert found.unresolved


def test_norms_of_other_convolutions_stay_open() -> None:
    """Of half the width, some norms have the length of others; their convolutions have no counterpart."""
    source, target = (build() for build in PAIRS["half the width"])
    found = answer(source, target)
    for key in made(found):
        if key.endswith(".weight") and ".bn" in key:
            before = key.replace(".bn1.", ".conv_pw.").replace(".bn2.", ".conv_dw.").replace(".bn3.", ".conv_pwl.")
            if before in target.state_dict() and not key.startswith("blocks.0"):
                assert before in made(found), key
