"""Published weights, read to the bit as torch and safetensors read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ckptfix.formats import open_checkpoint
from tests.weights import efficientnet_lite0, minilm, mobilenet_v2, resemblyzer

from .making import assert_same

_FILES: dict[str, tuple[Callable[[], Path], str, str]] = {
    "mobilenet_v2": (mobilenet_v2, "torch legacy", ""),
    "efficientnet_lite0": (efficientnet_lite0, "torch legacy", ""),
    "resemblyzer": (resemblyzer, "torch legacy", "model_state"),
    "minilm": (lambda: minilm() / "model.safetensors", "safetensors", ""),
}


@pytest.mark.parametrize("case", _FILES)
def test_reads_published_weights(case: str) -> None:
    find, kind, select = _FILES[case]
    path = find()
    loaded: Any = load_file(path) if kind == "safetensors" else torch.load(path, "cpu", weights_only=True)
    checkpoint = open_checkpoint(path)
    assert (checkpoint.format, checkpoint.select) == (kind, select)
    state = loaded[select] if select else loaded
    assert_same(checkpoint, {key: state[key] for key in checkpoint.tensors})
    assert set(checkpoint.tensors) == set(state)
