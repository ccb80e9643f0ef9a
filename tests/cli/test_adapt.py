"""The flags of `adapt` and `verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .running import call, save_net

TARGET = "py:net:build"


def adapt(*args: object, status: int = 0) -> None:
    assert call("adapt", *args) == status


def receipt(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["ckptfix"])


def test_without_a_recipe_only_the_format_changes(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", "net.pth", "-o", "out.safetensors")
    assert "4 of 4 tensors loaded; coverage 100.0%" in capsys.readouterr().out
    source, written = torch.load("net.pth"), load_file("out.safetensors")
    assert {key: tensor.tolist() for key, tensor in source.items()} == {
        key: tensor.tolist() for key, tensor in written.items()
    }


def test_json(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", TARGET, "-r", "head.yaml", "-o", "out.safetensors", "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == "out.safetensors"
    assert document["compatible"] is True
    assert document["filled"] == ["2.weight", "2.bias"]


def test_dtype_casts_floating_tensors_only(net: Path) -> None:
    tensors = torch.load("net.pth") | {"steps": torch.tensor(3)}
    torch.save(tensors, "net.pth")
    adapt("net.pth", "net.pth", "-o", "out.safetensors", "--dtype", "bfloat16")
    written = load_file("out.safetensors")
    assert {key: tensor.dtype for key, tensor in written.items() if key != "steps"} == dict.fromkeys(
        ("0.weight", "0.bias", "2.weight", "2.bias"), torch.bfloat16
    )
    assert written["steps"].dtype == torch.int64
    assert torch.equal(written["0.bias"], tensors["0.bias"].bfloat16())
    adapt("net.pth", "net.pth", "-o", "other.safetensors", "--dtype", "int8", status=2)


def test_a_cast_on_the_way_out_is_proved_by_the_source(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", TARGET, "-o", "out.pth", "--dtype", "BF16")
    assert "4 tensors are BF16, the target's are F32: loading casts them\n" in capsys.readouterr().out
    assert call("verify", "out.pth", TARGET, "--source", "net.pth", "--json") == 0
    assert json.loads(capsys.readouterr().out)["values"] is True


def test_a_prefix_is_offered_only_while_it_is_there(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load("net.pth")
    torch.save({f"module.{key}": tensor for key, tensor in state.items() if key != "0.bias"}, "ddp.pth")
    assert call("check", "ddp.pth", TARGET) == 1
    assert 'every source key has a wrapper\'s prefix: source: {strip: ["module."]}' in capsys.readouterr().out
    Path("strip.yaml").write_text("ckptfix: 1\nsource: {strip: module.}\n")
    assert call("check", "ddp.pth", TARGET, "-r", "strip.yaml") == 1
    out = capsys.readouterr().out
    assert "missing  0.bias" in out and "prefix" not in out


def test_a_variable_that_nothing_uses_is_refused(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "net.pth", TARGET, "-r", "head.yaml", "--var", "clases=3") == 2
    assert "head.yaml: nothing uses the variable 'clases' (the recipe declares none)" in capsys.readouterr().err


def test_force_replaces(net: Path) -> None:
    Path("out.pth").write_bytes(b"old")
    adapt("net.pth", TARGET, "-o", "out.pth", status=2)
    adapt("net.pth", TARGET, "-o", "out.pth", "--force")
    assert len(torch.load("out.pth", weights_only=True)) == 4


@pytest.mark.parametrize("out", ["net.pth", "link.pth"])
def test_the_source_is_never_replaced(net: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("link.pth").symlink_to("net.pth")
    before = Path("net.pth").read_bytes()
    adapt("net.pth", TARGET, "-r", "head.yaml", "-o", out, "--force", status=2)
    assert capsys.readouterr().err == f"error: {out}: is the source itself (write to another file)\n"
    assert Path("net.pth").read_bytes() == before


def test_partial_writes_what_there_is_and_fails(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["net.pth", f"{TARGET}?classes=7", "-o", "out.safetensors"]
    adapt(*args, status=1)
    assert not Path("out.safetensors").exists()
    capsys.readouterr()
    adapt(*args, "--partial", status=1)
    out = capsys.readouterr().out
    assert "mismatched  2.weight  have F32 [2, 4]  want F32 [7, 4]" in out and "wrote out.safetensors" in out
    assert sorted(load_file("out.safetensors")) == ["0.bias", "0.weight"]
    assert sorted(receipt(Path("out.safetensors"))["tensors"]) == ["0.bias", "0.weight"]
    adapt("net.pth", TARGET, "-o", "whole.safetensors", "--partial")


def test_partial_does_not_excuse_a_wrong_recipe(net: Path) -> None:
    Path("wrong.yaml").write_text("ckptfix: 1\nrules:\n  - {op: drop, keys: nope}\n")
    adapt("net.pth", TARGET, "-r", "wrong.yaml", "-o", "out.pth", "--partial", status=2)
    assert not Path("out.pth").exists()


def test_no_digest(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", TARGET, "-o", "out.safetensors", "--no-digest")
    written = receipt(Path("out.safetensors"))
    assert written["source"] is None
    assert {entry["blake3"] for entry in written["tensors"].values()} == {None}
    capsys.readouterr()
    assert call("verify", "out.safetensors", TARGET, "--input", "1,3", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["values"] is None
    assert document["notes"] == ["the receipt has no digests: the values were not checked (give --source and -r)"]


def test_bounds(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", TARGET, "-o", "out.pth", "--max-output", "100", status=2)
    assert capsys.readouterr().err == "error: the output takes 104 bytes, --max-output allows 100\n"
    assert not Path("out.pth").exists()
    adapt("net.pth", TARGET, "-o", "out.pth", "--max-output", "1.5KiB", "--memory", "50MB", "--dtype", "BF16")


def test_memory_is_not_promised_below_what_a_run_takes(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", TARGET, "-o", "out.pth", "--memory", "1", status=2)
    message = "to write 4 tensors takes up to 48010000 bytes, --memory allows 1 (give --memory 49MB or more)"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not Path("out.pth").exists()
    adapt("net.pth", TARGET, "-o", "out.pth", "--memory", "49MB")


def test_a_tensor_that_is_computed_is_held_to_the_memory(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": torch.ones(2000, 2000)}, "small.pth")
    torch.save({"w": torch.ones(4000, 2500)}, "large.pth")
    Path("r.yaml").write_text(
        "ckptfix: 1\nrules:\n  - {op: resize, keys: w, layout: h w, axes: {h: 4000, w: 2500}, mode: bilinear}\n"
    )
    adapt("small.pth", "large.pth", "-r", "r.yaml", "-o", "out.pth", "--memory", "55MB", status=2)
    message = "'w' is computed as a whole, which takes 56000000 bytes, --memory allows 55000000"
    assert capsys.readouterr().err.startswith(f"error: {message} (")
    adapt("small.pth", "large.pth", "-r", "r.yaml", "-o", "out.pth", "--memory", "56MB")


@pytest.mark.parametrize(
    ("flag", "value"), [("--memory", "much"), ("--max-output", "-1"), ("--dtype", "F4"), ("--var", "novalue")]
)
def test_values_that_cannot_be_read(flag: str, value: str, net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt("net.pth", TARGET, "-o", "out.pth", flag, value, status=2)
    assert f"'{value}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "status", "message"),
    [
        (
            "out.onnx",
            2,
            "no format is written as '.onnx' (use .safetensors, .pth, .pt, .bin, or NAME/ for a folder of shards, "
            "NAME.dcp for one of torch.distributed)",
        ),
        ("none/out.pth", 4, "cannot write: no such file or directory (make the folder first)"),
        ("net.py/out.pth", 4, "cannot write: not a directory"),
        (f"{'x' * 300}.pth", 4, "cannot write: file name too long"),
        ("folder.pth", 2, "is a folder (name a file in it)"),
    ],
)
def test_outputs_that_cannot_be(
    out: str, status: int, message: str, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder.pth").mkdir()
    adapt("net.pth", TARGET, "-o", out, "--force", status=status)
    assert capsys.readouterr().err == f"error: {out}: {message}\n"


def test_verify_needs_the_source_of_a_recipe(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", "net.pth", TARGET, "-r", "head.yaml") == 2
    assert "-r needs the checkpoint that it was applied to (add --source)" in capsys.readouterr().err


def test_verify_refuses_a_recipe_that_does_not_apply(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text("ckptfix: 1\nrules:\n  - {op: drop, keys: nope}\n")
    assert call("verify", "net.pth", TARGET, "--source", "net.pth", "-r", "wrong.yaml") == 2
    assert capsys.readouterr().err.startswith("error: wrong.yaml:3: drop: 'nope' matches no key")


def test_parity_flag(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_net(Path("other.pth"), seed=1)
    args = ["verify", "net.pth", TARGET, "--input", "2,3", "--json", "--parity"]
    assert call(*args, "net.pth", TARGET) == 0
    assert json.loads(capsys.readouterr().out)["parity"] == {"max_abs": 0.0, "first_divergent_module": None}
    assert call(*args, "other.pth", TARGET) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["parity"]["first_divergent_module"] == "0"
    assert document["parity"]["max_abs"] > 0.01


def test_one_line_of_a_target_on_the_cpu(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("needs_cpu.py").write_text(
        "import torch\nfrom net import build as make\n"
        "def build():\n    assert float(torch.linspace(0, 1, 3)[1]) == 0.5\n    return make()\n"
    )
    for command in (["check"], ["plan"], ["adapt", "-o", "out.pth"], ["verify"]):
        assert call(command[0], "net.pth", "py:needs_cpu:build", *command[1:]) == 0
        err = capsys.readouterr().err
        assert err.startswith("note: built on the CPU, since the meta device failed: "), command
        assert err.count("\n") == 1
