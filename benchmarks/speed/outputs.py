"""Look at what a command wrote: is it what the edit makes of the source, to the bit?"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.speed.scripts.edits import EDITS


def read(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a file, or of all files of a folder."""
    if path.is_dir():
        return {key: tensor for file in sorted(path.glob("*.safetensors")) for key, tensor in read(file).items()}
    if path.suffix == ".safetensors":
        return load_file(path)
    tensors: dict[str, Tensor] = torch.load(path, mmap=True, weights_only=True)
    return tensors


def difference(out: Path, source: Path, edit: str) -> str | None:
    """Say how an output differs from the edited source; None where it does not."""
    if not out.exists():
        return "wrote nothing"
    have, want = read(out), EDITS[edit](read(source))
    for key in sorted(have.keys() ^ want.keys()):
        return f"wrong output: {'lacks' if key in want else 'has'} {key}"
    for key in sorted(want):
        if not _equal(have[key], want[key]):
            return f"wrong output: {key} differs"
    return None


def _equal(have: Tensor, want: Tensor) -> bool:
    if (have.shape, have.dtype) != (want.shape, want.dtype):
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (have, want)))
