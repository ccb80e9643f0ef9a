"""Run two models on one input and tell how far what they do agrees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import Module

from ckptfix.proof.finding import one_line
from ckptfix.proof.forward import TOLERANCE, run

MOST_FORWARDS = 200
"""Forward passes of the target, after which the search ends."""


class Spent(Exception):
    """No forward pass is left."""


class NotRun(Exception):
    """A model does not load its checkpoint, or raises on the input."""


class Reading(Struct, frozen=True):
    """What one forward pass of the target showed.

    `gap` is the largest difference of the outputs, relative to the largest output; infinite where they cannot be
    compared. `agreeing` counts the corresponding modules whose outputs are equal, `divergent` is the first other one.
    """

    gap: float
    agreeing: int
    divergent: str | None

    @property
    def is_equal(self) -> bool:
        """Whether the outputs agree to float tolerance."""
        return self.gap <= TOLERANCE

    @property
    def worth(self) -> tuple[bool, int]:
        """What orders readings: equal outputs, then how many modules agree."""
        return self.is_equal, self.agreeing


class Twins:
    """A source model at work, and a target whose tensors are exchanged until it does the same.

    `modules` maps the path of a module of the target to that of its counterpart.
    """

    def __init__(self, source: Module, target: Module, batch: Tensor, modules: Mapping[str, str]) -> None:
        known = dict(source.named_modules()), dict(target.named_modules())
        self._paths = {path: other for path, other in modules.items() if path in known[1] and other in known[0]}
        self._target = target
        self._tensors = target.state_dict()
        self._batch = batch
        self.forwards = 0
        with _recorded(source, set(self._paths.values())) as calls:
            self._outputs = _run(source, batch)
        self._calls: dict[str, list[Tensor]] = {}
        for path, output in calls:
            self._calls.setdefault(path, []).append(output)

    def values(self, key: str) -> Tensor:
        """Copy what the target holds at a key."""
        value: Tensor = self._tensors[key].clone()
        return value

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Exchange some of the target's tensors."""
        for key, tensor in tensors.items():
            self._tensors[key].copy_(tensor)

    def read(self) -> Reading:
        """Run the target. Raises Spent where the passes are used up, and NotRun."""
        if self.forwards >= MOST_FORWARDS:
            raise Spent
        self.forwards += 1
        with _recorded(self._target, set(self._paths)) as calls:
            outputs = _run(self._target, self._batch)
        seen: dict[str, int] = {}
        agreeing, divergent = 0, None
        for path, output in calls:
            number = seen[path] = seen.get(path, -1) + 1
            expected = self._calls.get(self._paths[path], [])[number : number + 1]
            if not expected or expected[0].shape != output.shape:
                continue
            agrees = _gap(expected, [output]) <= TOLERANCE
            agreeing += agrees
            divergent = divergent or (None if agrees else path)
        return Reading(_gap(self._outputs, outputs), agreeing, divergent)


def _run(module: Module, batch: Tensor) -> list[Tensor]:
    try:
        return run(module, batch)
    except Exception as error:  # a model may raise anything on an input that does not suit it
        shape = list(batch.shape)
        raise NotRun(
            f"a forward pass on {shape} raised {one_line(error)} (is this the input's shape, its batch included?)"
        ) from error


@contextmanager
def _recorded(module: Module, paths: set[str]) -> Iterator[list[tuple[str, Tensor]]]:
    """Collect the outputs of some modules, in the order in which they run."""
    calls: list[tuple[str, Tensor]] = []

    def record(path: str) -> object:
        def keep(_module: Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):
                calls.append((path, output.clone()))

        return keep

    handles = [part.register_forward_hook(record(path)) for path, part in module.named_modules() if path in paths]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _gap(expected: list[Tensor], outputs: list[Tensor]) -> float:
    if not expected or [tensor.shape for tensor in expected] != [tensor.shape for tensor in outputs]:
        return math.inf
    gaps = [_relative(a.double(), b.double()) for a, b in zip(expected, outputs, strict=True) if a.numel()]
    return max(gaps, default=math.inf)


def _relative(expected: Tensor, output: Tensor) -> float:
    gap = float((expected - output).abs().max()) / max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    return gap if math.isfinite(gap) else math.inf
