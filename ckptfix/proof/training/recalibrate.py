"""Give BatchNorm running statistics that belong to the weights as they are now.

A running statistic follows the batches with momentum 0.1, and starts at mean 0 and variance 1. After some tens
of steps it still describes a network that no longer exists, and accuracy in eval mode sits at chance whatever was
learned. The cumulative average over the training set is what long training converges to.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ckptfix.proof.data.base import Inputs
from ckptfix.proof.training.forward import forward


def find_recalibrated(model: nn.Module, held: Iterable[str]) -> list[_BatchNorm]:
    """List the BatchNorms that keep running statistics and are not held in eval mode, so that training moves them."""
    kept = set(held)
    return [
        module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and path not in kept
    ]


def recalibrate(model: nn.Module, norms: Iterable[_BatchNorm], batches: Iterable[Inputs]) -> None:
    """Replace the running statistics of `norms` by their average over `batches`; leave the model in eval mode.

    Only those norms run in training mode: dropout is off and what is frozen stays untouched.
    """
    norms = list(norms)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's spelling of a cumulative average
        norm.training = True
    with torch.no_grad():
        for inputs in batches:
            forward(model, inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.training = False
