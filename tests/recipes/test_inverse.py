"""The law of inverses on every shipped recipe: where the way back is exact, it gives every byte back."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptfix
from ckptfix.formats import Checkpoint, Reader, open_checkpoint
from tests.recipes.case import Case
from tests.recipes.proof import convert
from tests.recipes.test_parity import CASES


def digests(checkpoint: Checkpoint) -> dict[str, bytes]:
    with Reader() as reader:
        return {key: bytes(reader.read(ref)) for key, ref in checkpoint.tensors.items()}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_there_and_back(case: Case, tmp_path: Path) -> None:
    conversion = convert(case, tmp_path)
    file, there, back = conversion.file, conversion.adapted.path, tmp_path / "back.safetensors"
    variables = dict(case.variables)
    inversion = ckptfix.invert(case.recipe, file, conversion.target, variables=variables)
    lossy = [f"{origin}: {inverse.why}" for origin, inverse in inversion.undone if inverse.kind == "lossy"]
    if lossy:
        # Nothing is guessed: each loss names its line, and the recipe is one that drops, takes or resizes.
        assert all(line.startswith(f"{case.recipe}.yaml:") for line in lossy)
        assert any(op in line for line in lossy for op in (": drop:", ": take:", ": resize:"))
        return
    used = {name: value for name, value in variables.items() if name in inversion.to_text()}
    ckptfix.adapt(there, f"shapes:{file}", back, inversion.to_text(), variables=used)
    original, returned = digests(open_checkpoint(file)), digests(open_checkpoint(back))
    assert original == returned
