"""Run a model on a batch and find the class scores in whatever it returns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ckptfix.errors import InvalidCall
from ckptfix.proof.data.base import Inputs


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    """Give the class scores `[batch, classes]`. Raises InvalidCall where the output holds none.

    A mapping of inputs becomes keyword arguments.
    """
    output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    logits = _find_logits(output)
    if logits is None or logits.ndim != 2:
        shape = type(output).__name__ if logits is None else f"a tensor {list(logits.shape)}"
        raise InvalidCall(f"the model returns {shape}", hint="fine-tuning needs class scores [batch, classes]")
    return logits


def _find_logits(output: object) -> Tensor | None:
    """Find the scores: the output itself, its `logits` (transformers), `out` (torchvision), or its first tensor.

    An auxiliary head comes after the main one (GoogLeNet, Inception).
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(named := getattr(output, "logits", None), Tensor):
        return named
    parts: list[object] = []
    if isinstance(output, Mapping):
        parts = [output[key] for key in ("logits", "out") if key in output] + list(output.values())
    elif isinstance(output, tuple | list):
        parts = list(output)
    return next((part for part in parts if isinstance(part, Tensor)), None)


def move(inputs: Inputs, device: torch.device) -> Inputs:
    """Put a batch on a device."""
    if isinstance(inputs, Mapping):
        return {key: value.to(device) for key, value in inputs.items()}
    return inputs.to(device)


def output_width(model: nn.Module, inputs: Inputs) -> int:
    """Count the classes that a model scores: one pass in eval mode, which is put back as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return forward(model, inputs).shape[1]
    finally:
        for module, mode in modes.items():
            module.training = mode
