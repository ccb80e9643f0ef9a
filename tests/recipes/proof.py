"""A case carried out: the weights converted, and the outputs of both models held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import ckptfix
from ckptfix.api import Adapted
from tests.recipes.case import Case, State, outputs, randomise

TOLERANCE = 1e-4
"""How far outputs may be apart, relative to the largest number."""


@dataclass(frozen=True)
class Conversion:
    """What a case became: the source's file, what was written from it, and what the target has to say to `inputs`."""

    case: Case
    source: nn.Module
    file: Path
    adapted: Adapted
    target: nn.Module
    inputs: Tensor
    want: Tensor

    @property
    def state(self) -> State:
        """The tensors that were written."""
        return load_file(self.adapted.path)

    def difference(self, state: State) -> float:
        """Load tensors strictly; give the largest difference of the outputs."""
        self.target.load_state_dict(state, strict=True)
        have = self.case.compared(outputs(self.target, self.inputs))
        assert have.shape == self.want.shape
        return float((have - self.want).abs().max())

    @property
    def allowed(self) -> float:
        """The largest difference that rounding explains."""
        return TOLERANCE * float(self.want.abs().max())


def convert(case: Case, folder: Path) -> Conversion:
    """Give both models random weights, save the source, and convert it by the recipe."""
    torch.manual_seed(0)
    source, target = case.source(), case.target()
    randomise(source)
    randomise(target)
    inputs = case.inputs()
    file = case.save(source, folder)
    want = case.compared(case.expected(outputs(case.reference(source), inputs)))
    out = folder / "converted.safetensors"
    adapted = ckptfix.adapt(file, target, out, case.recipe, variables=dict(case.variables))
    return Conversion(case, source, file, adapted, target, inputs, want)
