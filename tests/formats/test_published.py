"""Published weights, read to the bit as torch and safetensors read them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ckptfix.formats import open_checkpoint
from tests.weights import efficientnet_lite0, lpips, minilm, mobilenet_v2, pesto, pesto_g7, resemblyzer

from .making import assert_same

_FILES: dict[str, tuple[Callable[[], Path], str, str]] = {
    "mobilenet_v2": (mobilenet_v2, "torch legacy", ""),
    "efficientnet_lite0": (efficientnet_lite0, "torch legacy", ""),
    "resemblyzer": (resemblyzer, "torch legacy", "model_state"),
    "lpips": (lpips, "torch legacy", ""),
    "pesto": (pesto, "torch zip", "state_dict"),
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


def test_reads_weights_beside_objects_that_torch_refuses() -> None:
    """The hyperparameters name classes of omegaconf; the weights have the names and shapes that PESTO gives them."""
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(pesto_g7(), "cpu", weights_only=True)
    checkpoint = open_checkpoint(pesto_g7())
    assert any(str(value).startswith("omegaconf.") for _, value in checkpoint.opaque)
    loaded = torch.load(pesto_g7(), "cpu", weights_only=False, pickle_module=_Lenient)
    assert_same(checkpoint, loaded["state_dict"])


class _Lenient:
    """The pickle module, with an empty class for each that is not installed."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except ModuleNotFoundError:
                return type(name, (), {})

    load = pickle.load
