"""Run modules, and find where two of them first differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import Embedding, Module

from ckptfix.tensors import Shape

TOLERANCE = 1e-4
"""Largest difference of two outputs that count as equal, relative to the largest output (at least 1)."""


class Parity(Struct, frozen=True):
    """How far two models' outputs lie apart on one input.

    `max_abs` is None where they cannot be compared: other shapes, or a NaN or infinity among the differences.
    """

    max_abs: float | None
    first_divergent_module: str | None
    ok: bool


def sample_input(shape: Shape, module: Module) -> Tensor:
    """Draw the same numbers every time: normal ones in the dtype that the module computes with.

    `shape` is [batch, channels, height, width], or any other. A module that begins with an embedding is given
    indices into it.
    """
    generator = torch.Generator().manual_seed(0)
    first = next((part for part in module.modules() if part._parameters), None)
    if isinstance(first, Embedding):
        return torch.randint(first.num_embeddings, shape, generator=generator)
    numbers = torch.randn(shape, generator=generator)
    floating = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return numbers.to(next(floating, torch.float32))


def run(module: Module, batch: Tensor) -> list[Tensor]:
    """Run in eval mode without gradients and list the tensors of the output. What the module raises passes."""
    module.eval()
    with torch.no_grad():
        return list(_tensors(module(batch)))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _tensors(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _tensors(child)


def all_finite(outputs: list[Tensor]) -> bool:
    """Tell whether there is an output and no NaN or infinity in any."""
    return bool(outputs) and all(bool(torch.isfinite(output).all()) for output in outputs)


def compare_outputs(left: Module, right: Module, batch: Tensor) -> Parity:
    """Run both on one input; where they differ, name the first module of `right` whose output does.

    Modules correspond where they have the same path, or where both models run as many leaves in one order.
    """
    with _recorded(left) as left_leaves, _recorded(right) as right_leaves:
        left_outputs, right_outputs = run(left, batch), run(right, batch)
    max_abs = _difference(left_outputs, right_outputs)
    close = max_abs is not None and max_abs <= TOLERANCE * _scale(left_outputs)
    return Parity(max_abs, None if close else _first_divergent(left_leaves, right_leaves), close)


Leaves = list[tuple[str, list[Tensor]]]


@contextmanager
def _recorded(module: Module) -> Iterator[Leaves]:
    """Collect the output of every leaf module, in the order in which they run."""
    leaves: Leaves = []

    def record(path: str) -> object:
        return lambda _module, _args, output: leaves.append((path, [part.clone() for part in _tensors(output)]))

    handles = [
        part.register_forward_hook(record(path))
        for path, part in module.named_modules()
        if not any(True for _ in part.children())
    ]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def _first_divergent(left: Leaves, right: Leaves) -> str | None:
    if len(left) == len(right):
        pairs = [(path, outputs, others) for (_, outputs), (path, others) in zip(left, right, strict=True)]
    else:
        by_path = dict(left)
        pairs = [(path, by_path[path], others) for path, others in right if path in by_path]
    for path, outputs, others in pairs:
        difference = _difference(outputs, others)
        if difference is None or difference > TOLERANCE * _scale(outputs):
            return path
    return None


def _difference(left: list[Tensor], right: list[Tensor]) -> float | None:
    """Give the largest difference; None where number or shapes of the outputs differ, or where it is not finite."""
    if [tensor.shape for tensor in left] != [tensor.shape for tensor in right] or not left:
        return None
    differences = [
        float((a.double() - b.double()).abs().max()) if a.numel() else 0.0 for a, b in zip(left, right, strict=True)
    ]
    return max(differences) if all(map(math.isfinite, differences)) else None


def _scale(outputs: list[Tensor]) -> float:
    return max([1.0, *(float(output.abs().max()) for output in outputs if output.numel())])
