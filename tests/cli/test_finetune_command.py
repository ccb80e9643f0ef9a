"""`finetune` and `run` on the command line: flags, documents, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from .running import call

NET = """\
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 49, classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))

def build(classes=3):
    return Small(classes)
"""
TARGET = "py:small_net.py:build"
TRAINING = ["--data", "digits", "--input", "1,16,16", "--epochs", "4", "--device", "cpu", "--per-class", "8"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapted checkpoint whose head was filled."""
    monkeypatch.chdir(tmp_path)
    Path("small_net.py").write_text(NET)
    namespace: dict = {}
    exec(NET, namespace)  # the same text that ckptfix imports
    torch.manual_seed(0)
    torch.save(namespace["build"](7).state_dict(), "source.pth")
    Path("recipe.yaml").write_text(
        'ckptfix: 1\nrules:\n  - {op: drop, keys: "head.*"}\n  - {op: fill, keys: "head.*", value: target}\n'
    )
    assert call("adapt", "source.pth", TARGET, "-r", "recipe.yaml", "-o", "out.safetensors") == 0
    return tmp_path


def test_policies_side_by_side(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    policies = ["--policy", "frozen", "--policy", "partial:conv", "--policy", "scratch"]
    assert call("finetune", "out.safetensors", TARGET, *TRAINING, *policies, "--report", "report", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1 and document["ok"] is True and document["device"].startswith("cpu")
    assert list(document["policies"]) == ["frozen", "partial:conv", "scratch"]
    for result in document["policies"].values():
        assert len(result["steps"]) == len(result["loss"]) > 0
        assert result["frozen_unchanged"] is True and result["seconds"] > 0
        assert all(0 <= value <= 1 for value in result["accuracy"])
    trainable = {name: result["trainable_params"] for name, result in document["policies"].items()}
    assert trainable == {"frozen": 3 * 393, "partial:conv": 3 * 393 + 16, "scratch": 3 * 393 + 16 + 80}
    written = {path.name for path in Path("report").iterdir()}
    assert {"metrics.jsonl", "report.json", "report.html"} <= written
    assert json.loads(Path("report/report.json").read_text())["schema_version"] == 1


def test_text(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("finetune", "out.safetensors", TARGET, *TRAINING, "--policy", "frozen", "--seeds", "2") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].split() == ["policy", "accuracy", "loss", "trainable", "seconds", "frozen"]
    assert out.splitlines()[1].startswith("frozen  ") and out.splitlines()[1].endswith(" unchanged")


def test_a_training_that_does_not_learn_fails(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("finetune", "out.safetensors", TARGET, *TRAINING, "--policy", "unfrozen", "--lr", "1e30") == 1
    assert "FAILED: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["source.pth", TARGET + "?classes=7", *TRAINING, "--policy", "frozen"], 2, "partial:"),
        (["out.safetensors", TARGET, *TRAINING, "--policy", "forzen"], 2, "forzen"),
        (["out.safetensors", TARGET, "--data", "digits"], 2, "give --input 3,64,64"),
        (["out.safetensors", TARGET, "--data", "digist", "--input", "1,16,16"], 2, "digist"),
        (["source.pth", TARGET, *TRAINING, "--policy", "unfrozen"], 1, "head.weight"),
        (["none.pth", TARGET, *TRAINING], 4, "no such file"),
        (["out.safetensors", "out.safetensors", *TRAINING], 2, "cannot be built"),
        (["out.safetensors", TARGET], 2, "Missing option '--data'"),
    ],
)
def test_wrong_calls(
    args: list[str], status: int, message: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert call("finetune", *args) == status
    out, err = capsys.readouterr()
    assert out == "" and message in err


def test_run_prepares_once(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("step.yaml").write_text(
        f"source: source.pth\ntarget: {TARGET}\nrecipe: recipe.yaml\noutput: prepared/model.safetensors\n"
    )
    capsys.readouterr()
    assert call("run", "step.yaml", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert call("run", "step.yaml", "--json") == 0
    second = json.loads(capsys.readouterr().out)
    assert (first["cached"], second["cached"]) == (False, True)
    assert call("run", "step.yaml", "--set", f'target="{TARGET}?classes=4"') == 2
    assert call("run", "step.yaml", "--set", f'target="{TARGET}?classes=4"', "--force") == 0
    assert call("run", "none.yaml") == 4
