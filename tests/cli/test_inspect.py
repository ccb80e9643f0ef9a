"""`inspect`: what a file holds, what a target wants, and the lockfile."""

from __future__ import annotations

import json
import os
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptfix.formats import list_formats
from ckptfix.report.security import NO_PROOF

from .running import FIVE, FIXTURES, call


def answer(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert call("inspect", *args) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_file_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = answer(capsys, FIXTURES / "zip.pth").splitlines()
    assert lines[0].split() == ["0.weight", "F32", "[4,", "3,", "3,", "3]", "108"]
    assert lines[-2:] == ["zip.pth: torch zip", "8 tensors, 850 elements, 3.4 kB"]


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "tiny.safetensors"])
def test_a_file_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(answer(capsys, FIXTURES / name, "--json"))
    expected = torch.load(FIXTURES / "zip.pth")
    assert document["schema_version"] == 1
    assert document["format"] in {known.name for known in list_formats()}
    assert {key: entry["shape"] for key, entry in document["tensors"].items()} == {
        key: list(tensor.shape) for key, tensor in expected.items()
    }
    assert document["totals"]["tensors"] == len(expected)
    assert document["opaque"] == []


def test_one_of_several_state_dicts(capsys: pytest.CaptureFixture[str]) -> None:
    path = FIXTURES / "nested.pth"
    assert call("inspect", path) == 2
    err = capsys.readouterr().err
    assert "holds 2 state dicts: #state_dict (8 tensors, " in err and "#model_ema (8 tensors, " in err
    document = json.loads(answer(capsys, f"{path}#model_ema", "--json"))
    assert document["select"] == "model_ema"
    assert document["optimizers"] == ["optimizer"]
    shown = answer(capsys, f"{path}#model_ema")
    assert "other state dicts: #state_dict (8 tensors)" in shown and "optimizers: optimizer" in shown


def test_filter(capsys: pytest.CaptureFixture[str]) -> None:
    shown = answer(capsys, FIXTURES / "zip.pth", "--filter", "1.*")
    assert "1.running_mean" in shown and "0.weight" not in shown
    document = json.loads(answer(capsys, FIXTURES / "zip.pth", "--filter", "*.bias", "--json"))
    assert list(document["tensors"]) == ["1.bias", "4.bias"]


def test_filter_on_a_target(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(answer(capsys, "py:net:build", "--filter", "2.*", "--json"))
    assert list(document["tensors"]) == ["2.weight", "2.bias"]


def test_tree(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split() for line in answer(capsys, FIXTURES / "zip.pth", "--tree").splitlines()]
    assert ["4", "725", "weight", "[5,", "144]", "bias", "[5]"] in rows
    assert ["(root)", "850"] in rows


def test_stats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan, inf = float("nan"), float("inf")
    path = tmp_path / "values.pth"
    tensors = {
        "mixed": torch.tensor([0.0, 1.0, -3.0, nan, inf, -inf]),
        "empty": torch.empty(0, 3),
        "whole": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "half": torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
        "eighth": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        "complex": torch.tensor([3 + 4j]),
        "short": torch.tensor([1, 3]).to(torch.uint16),
        "huge": torch.tensor([1e300, -1e300], dtype=torch.float64),
    }
    torch.save(tensors, path)
    rows = json.loads(answer(capsys, path, "--stats", "--json"))["tensors"]
    assert list(rows) == list(tensors)
    assert rows["mixed"] == {
        "shape": [6],
        "dtype": "F32",
        "least": -3.0,
        "largest": 1.0,
        "mean": pytest.approx(-2 / 3),
        "deviation": pytest.approx((26 / 9) ** 0.5),
        "zeros": 1,
        "nan": 1,
        "infinite": 2,
    }
    assert rows["empty"]["mean"] is None
    assert rows["complex"]["mean"] == 5
    assert [rows[key]["mean"] for key in ("whole", "flags", "half", "eighth", "short")] == [7, 0.5, 2, 1.5, 2]
    assert "eighth" in answer(capsys, path, "--stats")


def test_security(capsys: pytest.CaptureFixture[str]) -> None:
    shown = answer(capsys, FIXTURES / "hostile.pth", "--security")
    assert shown.splitlines()[0] == "unpickling would have called, and ckptfix did not:"
    assert "posix.system" in shown and "at extra" in shown
    document = json.loads(answer(capsys, FIXTURES / "hostile.pth", "--security", "--json"))
    row = {"name": "posix.system", "called": True, "times": 1, "place": "extra", "places": ["extra"]}
    assert document == {"schema_version": 1, "opaque": [row], "notes": [], "note": NO_PROOF, "errors": []}
    assert shown.splitlines()[-1] == NO_PROOF
    harmless = answer(capsys, FIXTURES / "zip.pth", "--security").splitlines()
    assert harmless == ["unpickling would call nothing but the constructors of tensors and containers", NO_PROOF]


def test_security_counts_what_occurs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(1, 5), os.system]
    torch.save({"w": torch.zeros(2), "evil": evil}, tmp_path / "x.pth")
    shown = answer(capsys, tmp_path / "x.pth", "--security")
    assert "fractions.Fraction  4 times  at evil[0], evil[1], evil[2]" in shown
    assert "posix.system                 at evil[4], only named" in shown


def test_a_target_shows_that_the_last_layer_is_classifier_1(capsys: pytest.CaptureFixture[str]) -> None:
    lines = answer(capsys, FIVE).splitlines()
    assert "last layer with parameters: classifier.1" in lines
    row = next(line for line in lines if line.startswith("classifier.1 "))
    assert re.split(r" {2,}", row) == [
        "classifier.1",
        "6,405",
        "weight [5, 1280]",
        "bias [5]",
        "Linear(in_features=1280, out_features=5, bias=True)",
    ]
    assert "314 tensors, 2,230,277 parameters, 34,164 in buffers" in lines


def test_the_lockfile_replaces_the_model(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "py:net:build", "--shapes", "-o", "target.json") == ""
    document = json.loads((net / "target.json").read_text())
    assert document == {
        "schema_version": 1,
        "tensors": {
            "0.weight": {"shape": [4, 3], "dtype": "F32", "module": "Linear", "kind": "param"},
            "0.bias": {"shape": [4], "dtype": "F32", "module": "Linear", "kind": "param"},
            "2.weight": {"shape": [2, 4], "dtype": "F32", "module": "Linear", "kind": "param"},
            "2.bias": {"shape": [2], "dtype": "F32", "module": "Linear", "kind": "param"},
        },
        "modules": {
            "": "Sequential()",
            "0": "Linear(in_features=3, out_features=4, bias=True)",
            "1": "ReLU()",
            "2": "Linear(in_features=4, out_features=2, bias=True)",
        },
    }
    assert json.loads(answer(capsys, "py:net:build", "--shapes")) == document
    assert call("check", "net.pth", "target.json") == 0
    assert call("check", "net.pth", "shapes:target.json") == 0


def test_the_lockfile_of_a_file(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "net.pth", "--shapes", "-o", "target.json")
    assert call("check", "net.pth", "target.json") == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["net.pth", "-o", "x.json"], "-o belongs to --shapes (add --shapes)"),
        (["net.pth", "--stats", "--security"], "--stats, --security and --shapes are three answers"),
        (["net.pth", "--shapes", "--filter", "0.*"], "--filter does not apply to --shapes"),
        (["py:net:build", "--stats"], "a target has no values and no pickle"),
        (["torchvison:resnet18"], "unknown scheme 'torchvison' (did you mean 'torchvision:'?)"),
        (["net.pth", "--shapes", "-o", "net.pth"], "'net.pth' does not end in .json"),
    ],
)
def test_wrong_calls(args: list[str], message: str, net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (net / "net.pth").read_bytes()
    assert call("inspect", *args) == 2
    assert message in capsys.readouterr().err
    assert (net / "net.pth").read_bytes() == before


def test_wrapper_prefixes_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"module._orig_mod.w": torch.zeros(1)}, tmp_path / "wrapped.safetensors")
    shown = answer(capsys, tmp_path / "wrapped.safetensors")
    assert "every key has the prefix 'module._orig_mod.'" in shown
    document = json.loads(answer(capsys, tmp_path / "wrapped.safetensors", "--json"))
    assert document["wrappers"] == ["module.", "_orig_mod."]
