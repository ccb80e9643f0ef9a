"""Laws: whatever container a state dict comes from and goes to, every library reads the same bits."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ckptfix import adapt, verify
from ckptfix.execute.evaluate import from_bytes
from ckptfix.formats import Reader, open_checkpoint
from tests.durability.soak import SOAK
from tests.execute.making import DTYPES, pattern
from tests.formats.making import bytes_of

EXAMPLES = 2_000 if SOAK else 150

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:Detected pickle protocol")

KEYS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.lists(st.sampled_from(("0", "weight", "a", "", "é", "10")), min_size=1, max_size=4).map(".".join),
).filter(lambda key: key != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=5).map(tuple)


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors of any dtype and rank: some tied, some turned, some parts of others, every second row, or expanded."""
    tensors: dict[str, Tensor] = {}
    for key in draw(st.lists(KEYS, min_size=1, max_size=6, unique=True)):
        kind = draw(st.sampled_from(("new", "new", "tied", "turned", "part", "stepped", "expanded")))
        last = next(reversed(tensors.values()), None)
        if kind == "new" or last is None or last.dim() == 0:
            tensors[key] = pattern(draw(st.sampled_from(DTYPES)), draw(SHAPES))
        elif kind == "tied":
            tensors[key] = last
        elif kind == "turned":
            tensors[key] = last.movedim(0, -1)
        elif kind == "part":
            tensors[key] = last[1:]
        else:
            tensors[key] = last[::2] if kind == "stepped" else last[None].expand(3, *last.shape)
    return tensors


SOURCES: dict[str, Callable[[dict[str, Tensor], Path], Any]] = {
    "torch zip": torch.save,
    "torch zip of protocol 5": lambda tensors, path: torch.save(tensors, path, pickle_protocol=5),
    "torch legacy": lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
    "pickle": lambda tensors, path: path.write_bytes(pickle.dumps(tensors, 4)),
}
"""What a state dict is read from. `torch.save` keeps storages shared; a plain pickle does not."""


def by_torch(path: Path) -> dict[str, Tensor]:
    """Read with torch, running nothing."""
    return torch.load(path, weights_only=True)


def by_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all shards with safetensors."""
    return {key: value for shard in sorted(path.glob("*.safetensors")) for key, value in load_file(shard).items()}


def by_torch_shards(path: Path) -> dict[str, Tensor]:
    """Read all shards with torch."""
    return {key: value for shard in sorted(path.glob("*.bin")) for key, value in by_torch(shard).items()}


def by_distributed(path: Path) -> dict[str, Tensor]:
    """Read the folder with torch.distributed.checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        dcp_to_torch_save(path, Path(folder, "x.pth"))
        return by_torch(Path(folder, "x.pth"))


OUTPUTS: dict[str, tuple[str, str, int | None, Callable[[Path], dict[str, Tensor]]]] = {
    "safetensors": ("x.safetensors", "x.safetensors", None, load_file),
    "torch zip": ("x.pth", "x.pth", None, by_torch),
    "safetensors in shards": ("model.safetensors", ".", 60, by_safetensors),
    "torch zip in shards": ("pytorch_model.bin", ".", 60, by_torch_shards),
    "a folder": ("whole/", "whole", None, by_safetensors),
    "torch distributed": ("x.dcp", "x.dcp", None, by_distributed),
    "torch distributed in parts": ("x.dcp", "x.dcp", 60, by_distributed),
}
"""What is written: the name to write, what to open, the bytes of a shard, and what else reads it."""


def bits(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Everything of the tensors that must be kept."""
    return {key: (tensor.dtype, tuple(tensor.shape), bytes_of(tensor)) for key, tensor in tensors.items()}


def held_by(output: str, tensor: Tensor) -> bool:
    """Whether a format has the dtype."""
    return "torch" in output or tensor.dtype != torch.complex128


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state_dicts(), st.sampled_from(sorted(SOURCES)), st.sampled_from(sorted(OUTPUTS)))
def test_what_is_written_is_read_by_every_library(tensors: dict[str, Tensor], source: str, output: str) -> None:
    tensors = {key: tensor for key, tensor in tensors.items() if held_by(output, tensor)}
    if not tensors:
        return
    name, opened, limit, read = OUTPUTS[output]
    with tempfile.TemporaryDirectory() as folder:
        saved, out = Path(folder, "saved.pth"), Path(folder, "out")
        out.mkdir()
        SOURCES[source](tensors, saved)
        adapt(f"{saved}#.", f"{saved}#.", f"{out}/{name}", max_shard_size=limit)
        written = out / opened
        checkpoint = open_checkpoint(f"{written}#.")
        with Reader() as reader:
            found = {key: from_bytes(reader.read(ref), ref.spec) for key, ref in checkpoint.tensors.items()}
        assert bits(found) == bits(tensors)
        assert bits(read(written)) == bits(tensors)
        assert verify(written, f"{saved}#.", source=f"{saved}#.").values is True


def test_one_element_may_have_any_stride(tmp_path: Path) -> None:
    tensors = {"one": torch.arange(2.0)[::2], "none": torch.empty(0, 2)[:, ::2]}
    torch.save(tensors, tmp_path / "saved.pth")
    adapt(tmp_path / "saved.pth", tmp_path / "saved.pth", tmp_path / "x.safetensors")
    found = verify(tmp_path / "x.safetensors", tmp_path / "saved.pth", source=tmp_path / "saved.pth")
    assert found.values is True
    assert bits(load_file(tmp_path / "x.safetensors")) == bits(tensors)
