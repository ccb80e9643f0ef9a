"""Keys that the target ties to one tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptfix import adapt
from ckptfix.errors import IncompletePlan, TiedConflict

from ..cli.running import call
from .making import BOTH

TIED = """\
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.free = nn.Linear(3, 5, bias=False)
        self.wte = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.wte.weight

def build():
    return Tied()
"""
ONE = torch.arange(15.0).reshape(5, 3)
TARGET = "py:tied_net.py:build"


@pytest.fixture(autouse=True)
def tied_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tied_net.py").write_text(TIED)


def save(wte: torch.Tensor, head: torch.Tensor | None, free: torch.Tensor = ONE) -> None:
    tensors = {"free.weight": free, "wte.weight": wte, "head.weight": head}
    torch.save({key: tensor for key, tensor in tensors.items() if tensor is not None}, "source.pth")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("digests", ["blake3", "none"])
def test_different_bytes_are_refused(name: str, digests: str, tmp_path: Path) -> None:
    save(ONE, ONE + 1)
    with pytest.raises(TiedConflict, match=r"'wte.weight' and 'head.weight' are one tensor.*given different bytes"):
        adapt("source.pth", TARGET, name, digests=digests)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source.pth", "tied_net.py"]


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    save(ONE, ONE + 1)
    assert call("adapt", "source.pth", TARGET, "-o", "out.pth") == 1
    assert capsys.readouterr().err == (
        "note: wte.weight and head.weight are one tensor in the target, and made in different ways: adapt compares "
        "their bytes\n"
        "error: 'wte.weight' and 'head.weight' are one tensor in the target and were given different bytes "
        "(drop one, then {op: copy, from: wte.weight, to: head.weight})\n"
    )


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("digests", ["blake3", "none"])
@pytest.mark.parametrize("case", ["aliases", "equal copies", "alias of a free tensor"])
def test_equal_bytes_are_accepted(name: str, digests: str, case: str) -> None:
    match case:
        case "aliases":
            save(ONE, ONE, ONE + 1)
        case "equal copies":
            save(ONE, ONE.clone(), ONE + 1)
        case _:
            save(ONE.clone(), ONE, ONE)
    adapt("source.pth", TARGET, name, digests=digests)
    assert call("verify", name, TARGET) == 0


def test_a_missing_partner_is_missing_and_copy_mends_it(capsys: pytest.CaptureFixture[str]) -> None:
    save(ONE, None)
    with pytest.raises(IncompletePlan):
        adapt("source.pth", TARGET, "out.pth")
    assert call("check", "source.pth", TARGET) == 1
    hint = "{op: copy, from: wte.weight, to: head.weight}"
    assert hint in capsys.readouterr().out
    adapt("source.pth", TARGET, "out.pth", f"ckptfix: 1\nrules:\n  - {hint}\n")
    loaded = torch.load("out.pth", weights_only=True)
    assert loaded["head.weight"].data_ptr() == loaded["wte.weight"].data_ptr()
