"""The whole path on the official MobileNetV2 and a target of five classes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

from .running import FIVE, HEAD, IMAGENET, NEW_HEAD, call, listing, spawn


def test_check_names_the_two_tensors_that_do_not_fit(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", official, FIVE, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["compatible"] is False
    assert report["mismatched"] == [
        {
            "key": "classifier.1.weight",
            "have": {"shape": [1000, 1280], "dtype": "F32"},
            "want": {"shape": [5, 1280], "dtype": "F32"},
        },
        {
            "key": "classifier.1.bias",
            "have": {"shape": [1000], "dtype": "F32"},
            "want": {"shape": [5], "dtype": "F32"},
        },
    ]
    assert len(report["loaded"]) == 312
    assert report["missing"] == report["unexpected"] == report["filled"] == report["dropped"] == report["errors"] == []
    assert report["coverage"]["tensors"] == 312 / 314


def test_check_accepts_the_architecture_it_was_saved_from(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", official, IMAGENET, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["compatible"] is True
    assert len(report["loaded"]) == 314
    assert report["coverage"] == {"tensors": 1.0, "params": 1.0}


def test_the_adapted_file_loads_strictly_and_keeps_every_byte(adapted: Path, official: Path) -> None:
    loaded = load_file(adapted)
    model = mobilenet_v2(num_classes=5)
    assert str(model.load_state_dict(loaded, strict=True)) == "<All keys matched successfully>"
    source = torch.load(official, weights_only=True)
    kept = [key for key in source if key not in HEAD]
    assert len(kept) == 312
    for key in kept:
        assert loaded[key].dtype == source[key].dtype, key
        assert loaded[key].numpy().tobytes() == source[key].numpy().tobytes(), key


def test_the_new_head_is_what_torchvision_itself_starts_with(adapted: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = mobilenet_v2(num_classes=5).state_dict()
    loaded = load_file(adapted)
    for key in HEAD:
        assert torch.equal(loaded[key], fresh[key]), key


def test_the_adapted_file_is_verified(
    adapted: Path, official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(NEW_HEAD)
    shape = "1,3,64,64"
    assert call("verify", adapted, FIVE, "--source", official, "-r", recipe, "--input", shape, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "schema_version": 1,
        "ok": True,
        "strict_load": True,
        "values": True,
        "forward": True,
        "parity": None,
        "untried": [],
        "at_initialisation": HEAD,
        "problems": [],
        "notes": [],
    }


def test_without_the_fill_nothing_is_written(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(NEW_HEAD.splitlines()[:3]))
    before = listing(tmp_path)
    assert call("adapt", official, FIVE, "-r", recipe, "-o", tmp_path / "out.safetensors") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: incomplete: 2 missing (classifier.1.weight, classifier.1.bias) (`ckptfix check` lists them" in err
    assert "missing  classifier.1.weight" in err
    assert listing(tmp_path) == before


def test_dropping_by_shape_serves_both_targets(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(NEW_HEAD.replace('drop, keys: "classifier.1.*"', 'drop, keys: "**", when: mismatched'))
    assert call("check", official, FIVE, "-r", recipe, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dropped"] == report["filled"] == HEAD
    assert call("check", official, IMAGENET, "-r", recipe, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dropped"] == report["filled"] == []
    assert len(report["loaded"]) == 314


@pytest.mark.parametrize("command", ["check", "plan"])
def test_planning_reads_no_weights(command: str, tmp_path: Path) -> None:
    rows = 1 << 26
    tensors = {f"layers.{i}.weight": [rows, 1024] for i in range(4)}
    nbytes = rows * 1024 * 4
    header = {
        key: {"dtype": "F32", "shape": shape, "data_offsets": [i * nbytes, (i + 1) * nbytes]}
        for i, (key, shape) in enumerate(tensors.items())
    }
    raw = json.dumps(header).encode()
    path = tmp_path / "huge.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(path, 8 + len(raw) + 4 * nbytes)
    assert path.stat().st_size > 10**12
    start = time.perf_counter()
    found = spawn(command, path, path)
    seconds = time.perf_counter() - start
    assert (found.returncode, found.stderr) == (0, "")
    assert seconds < 2
