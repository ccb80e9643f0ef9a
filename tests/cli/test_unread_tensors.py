"""A tensor that is not read is never left out in silence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptfix.formats import open_checkpoint

from .running import BUILD, call, save_net

TARGET = "py:net:build"

_UNREAD: dict[str, tuple[Callable[[], object], str]] = {
    "complex": (lambda: torch.zeros(2, dtype=torch.complex32), "torch.complex32"),
    "parameter": (
        lambda: torch.nn.Parameter(torch.zeros(2, dtype=torch.complex32), requires_grad=False),
        "torch.complex32",
    ),
    "meta": (lambda: torch.ones(3, device="meta"), "on the meta device, without elements"),
    "long double": (lambda: np.ones(3, np.longdouble), f"numpy's dtype {np.dtype(np.longdouble).str[1:]}"),
    "long number": (lambda: np.longdouble(1), f"numpy's dtype {np.dtype(np.longdouble).str[1:]}"),
    "date": (lambda: np.zeros(2, "M8[s]"), "numpy's dtype M8"),
    "masked": (lambda: np.ma.masked_array([1.0, 2.0], [True, False]), "numpy.ma.MaskedArray"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(BUILD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _save(folder: Path, beside: dict[str, object]) -> None:
    """Write the state dict of BUILD's net with other values in it."""
    state = save_net(folder / "net.pth")
    torch.save({**state, **beside}, folder / "net.pth")


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("case", _UNREAD)
def test_each_command_names_what_is_not_read(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, kind = _UNREAD[case]
    _save(folder, {"odd.h": make()})
    note = f"net.pth: 'odd.h' is a tensor that ckptfix does not read ({kind}): it is left out"
    for arguments in (
        ("check", "net.pth", TARGET),
        ("plan", "net.pth", TARGET),
        ("adapt", "net.pth", TARGET, "-o", "out.safetensors"),
        ("adapt", "net.pth", TARGET, "--suggest", "-o", "other.safetensors"),
        ("suggest", "net.pth", TARGET),
        ("verify", "net.pth", TARGET),
        ("verify", "out.safetensors", TARGET, "--source", "net.pth"),
        ("inspect", "net.pth"),
    ):
        call(*arguments)
        output = capsys.readouterr()
        assert output.err.splitlines().count(f"note: {note}") == 1, arguments
        assert note not in output.out
    for arguments in (
        ("inspect", "net.pth"),
        ("suggest", "net.pth", TARGET),
        ("verify", "net.pth", TARGET),
        ("check", "net.pth", TARGET),
        ("plan", "net.pth", TARGET),
        ("adapt", "net.pth", TARGET, "-o", "third.safetensors"),
        ("adapt", "net.pth", "py:net:build?classes=5", "-o", "fourth.safetensors"),
    ):
        call(*arguments, "--json")
        # `inspect` is about one file, and so does not name it.
        expected = note.removeprefix("net.pth: ") if arguments[0] == "inspect" else note
        assert json.loads(capsys.readouterr().out)["notes"].count(expected) == 1, arguments


def test_each_of_a_list_is_named_and_many_are_counted(folder: Path) -> None:
    _save(folder, {"odd": [1, *(torch.ones(2, device="meta") for _ in range(11))]})
    checkpoint = open_checkpoint("net.pth")
    assert checkpoint.ignored == ("odd",)
    assert [note.split()[0] for note in checkpoint.notes] == [*(f"'odd.{index}'" for index in range(1, 9)), "3"]
    assert checkpoint.notes[-1] == "3 more tensors that ckptfix does not read: left out"


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("case", _UNREAD)
def test_taking_every_tensor_of_a_file_names_it_too(case: str, folder: Path) -> None:
    make, kind = _UNREAD[case]
    _save(folder, {"odd": [make()]})
    expected = f"'odd.0' is a tensor that ckptfix does not read ({kind}): it is left out"
    assert open_checkpoint("net.pth", select=".").notes == (expected,)


def test_nothing_is_said_of_what_is_no_tensor(folder: Path) -> None:
    others = {"epoch": 3, "names": np.array(["a", "b"]), "none": None, "dtype": torch.float16, "config": {"a": [1.0]}}
    _save(folder, others)
    assert open_checkpoint("net.pth").notes == ()
    (folder / "x.pkl").write_bytes(pickle.dumps({"w": np.ones(2), **others}))
    assert open_checkpoint("x.pkl").notes == ()


def test_another_state_dict_says_nothing(folder: Path) -> None:
    state = save_net(folder / "net.pth")
    odd = torch.ones(2, device="meta")
    torch.save({"model": state, "ema": {**state, "odd": odd}}, folder / "two.pth")
    assert open_checkpoint("two.pth#model").notes == ()
    assert len(open_checkpoint("two.pth#ema").notes) == 1


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_what_keeps_a_mapping_from_being_the_state_dict_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = torch.zeros(2, dtype=torch.complex32)
    torch.save({"h": odd, "rng": [odd.clone()], "sub": save_net(folder / "net.pth")}, folder / "two.pth")
    named = "'h' (torch.complex32), 'rng.0' (torch.complex32)"
    note = f"only 'sub' is taken; beside it ckptfix does not read 2 tensors: {named}"
    assert open_checkpoint("two.pth").notes == (note,)
    assert open_checkpoint("two.pth#sub").notes == ()  # which was asked for
    assert call("check", "two.pth", TARGET) == 0
    assert f"note: two.pth: {note}" in capsys.readouterr().err
    state = np.random.default_rng(0).bit_generator.state
    torch.save({"rng": np.arange(3, dtype="u4"), "state": state, "sub": save_net(folder / "net.pth")}, "three.pth")
    assert open_checkpoint("three.pth").notes == ()
