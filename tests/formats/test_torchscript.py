"""TorchScript archives: the keys that `state_dict()` of the loaded module has, from text that is never run."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats import open_checkpoint, open_contents
from ckptfix.formats.zip import script

from .making import assert_same, write

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")


class _Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("transient", torch.zeros(3), persistent=False)
        self.linear = torch.nn.Linear(2, 3)
        self.constant = torch.arange(4.0)
        self.list = [torch.ones(5), torch.ones(6)]
        self.weight = torch.nn.Parameter(torch.randn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x) + self.constant.sum() + self.transient.sum() + self.weight + self.list[0].sum()
        return x[:, :2] + torch.tensor([7.0, 8.0]) * self.kept


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3, bias=False)
        self.norm = torch.nn.BatchNorm2d(2)
        self.blocks = torch.nn.ModuleList([_Block(), _Block()])
        self.activation = torch.nn.ReLU()
        self.tied = self.blocks[0].linear
        self.recurrent = torch.nn.LSTM(2, 2)
        self.listed = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(3))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.activation(x)


def _saved(path: Path, way: str, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.eval()
    module = torch.jit.script(model) if way == "script" else torch.jit.trace(model, torch.ones(1, 2))
    torch.jit.save(module, path)
    return dict(torch.jit.load(path).state_dict())


@pytest.mark.parametrize("way", ["script", "trace"])
def test_keys_are_those_of_the_loaded_module(way: str, tmp_path: Path) -> None:
    expected = _saved(tmp_path / "x.pt", way, _Net())
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_same(checkpoint, expected)
    assert checkpoint.format == "torch zip"
    assert checkpoint.select == ""
    assert {value.module.partition(".")[0] for _, value in checkpoint.opaque} == {"__torch__"}


def test_reads_every_dtype(tmp_path: Path) -> None:
    model = torch.nn.Module()
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16):
        model.register_buffer(f"b_{str(dtype)[6:]}", torch.randint(0, 2, (3, 2)).to(dtype))
    for dtype in (torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128):
        model.register_buffer(f"b_{str(dtype)[6:]}", torch.randn(3, 2).to(dtype).t())
    model.register_buffer("scalar", torch.tensor(3))
    expected = _saved(tmp_path / "x.pt", "script", model)
    assert_same(open_checkpoint(tmp_path / "x.pt"), expected)


def test_optimised_for_mobile_and_frozen_archives_hold_what_is_left(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(_Net().eval()), preserved_attrs=["conv"])
    torch.jit.save(frozen, tmp_path / "x.pt")
    assert_same(open_checkpoint(tmp_path / "x.pt"), dict(torch.jit.load(tmp_path / "x.pt").state_dict()))


def test_without_its_source_a_module_is_its_attributes(tmp_path: Path) -> None:
    _saved(tmp_path / "x.pt", "script", _Block())
    with zipfile.ZipFile(tmp_path / "x.pt") as whole, zipfile.ZipFile(tmp_path / "y.pt", "w") as rest:
        for name in whole.namelist():
            if "/code/" not in name:
                rest.writestr(name, whole.read(name))
    assert set(open_checkpoint(tmp_path / "y.pt").tensors) >= {"weight", "kept", "constant", "linear.weight"}


def test_a_damaged_source_hides_no_parameter(tmp_path: Path) -> None:
    _saved(tmp_path / "x.pt", "script", _Block())
    with zipfile.ZipFile(tmp_path / "x.pt") as whole, zipfile.ZipFile(tmp_path / "z.pt", "w") as stored:
        for name in whole.namelist():
            stored.writestr(name, whole.read(name))
    data = (tmp_path / "z.pt").read_bytes()
    assert data.count(b'["weight", "bias", ]') == 1
    with pytest.raises(MalformedFile, match=r"linear\.py has CRC-32"):
        open_contents(write(tmp_path / "y.pt", data.replace(b'["weight", "bias", ]', b'["weight", "bia", ] ')))


def test_the_source_text_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _saved(tmp_path / "x.pt", "script", _Block())
    monkeypatch.setattr(script, "_MAX_SOURCE", 100)
    with pytest.raises(LimitExceeded, match="100 are allowed"):
        open_contents(tmp_path / "x.pt")
