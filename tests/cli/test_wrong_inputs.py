"""Twelve wrong inputs: a message of one line, the right exit status, nothing written, nothing run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .running import call, listing, save_net, spawn

TARGET = "py:net:build"


class RunsCommand:
    """What pickles itself as a call of `os.system`."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def make_nothing(folder: Path) -> None:
    """The input is wrong because it is not there."""


def make_text(folder: Path) -> None:
    (folder / "text.pth").write_text("hello\n")


def cut_zip(folder: Path) -> None:
    data = (folder / "net.pth").read_bytes()
    (folder / "cut.pth").write_bytes(data[: len(data) // 2])


def cut_safetensors(folder: Path) -> None:
    save_file(torch.load(folder / "net.pth"), folder / "cut.safetensors")
    os.truncate(folder / "cut.safetensors", (folder / "cut.safetensors").stat().st_size - 10)


def make_hostile(folder: Path) -> None:
    torch.save(RunsCommand(), folder / "hostile.pth")


def make_output(folder: Path) -> None:
    (folder / "out.safetensors").write_bytes(b"precious")


def with_rule(rule: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(f"ckptfix: 1\nrules:\n  - {rule}\n")

    return make


@dataclass(frozen=True)
class Wrong:
    """A call, what must be there before it, and what comes of it."""

    make: Callable[[Path], None]
    args: list[str]
    status: int
    code: str
    line: str
    holds: str = field(default="error")
    """The field of the JSON document that the fault is in: a plan that exists is printed with its `errors`."""


WRONG = {
    "missing file": Wrong(make_nothing, ["none.pth", TARGET], 4, "CKF401", "error: none.pth: no such file"),
    "text file": Wrong(
        make_text, ["text.pth", TARGET], 3, "CKF301", "error: text.pth: is a text file, not a checkpoint"
    ),
    "truncated zip": Wrong(
        cut_zip,
        ["cut.pth", TARGET],
        3,
        "CKF302",
        "error: cut.pth: has no zip directory at its end (download or copy the file again)",
    ),
    "truncated safetensors": Wrong(
        cut_safetensors,
        ["cut.safetensors", TARGET],
        3,
        "CKF302",
        "error: cut.safetensors: holds 94 bytes of data where its header describes 104 "
        "(download or copy the file again)",
    ),
    "pickle that runs a command": Wrong(
        make_hostile,
        ["hostile.pth", TARGET],
        3,
        "CKF305",
        "error: hostile.pth: holds no tensor",
    ),
    "unknown op": Wrong(
        with_rule('{op: renmae, map: {"0.weight": w}}'),
        ["net.pth", TARGET, "-r", "recipe.yaml"],
        2,
        "CKF202",
        "error: recipe.yaml:3: renmae: unknown op 'renmae' (did you mean 'rename'?)",
    ),
    "misspelt field": Wrong(
        with_rule('{op: drop, kyes: "0.*"}'),
        ["net.pth", TARGET, "-r", "recipe.yaml"],
        2,
        "CKF202",
        "error: recipe.yaml:3: drop: unknown field 'kyes' (did you mean 'keys'?)",
    ),
    "rule that matches nothing": Wrong(
        with_rule('{op: drop, keys: "0.wieght"}'),
        ["net.pth", TARGET, "-r", "recipe.yaml"],
        2,
        "CKF204",
        "error: recipe.yaml:3: drop: '0.wieght' matches no key (nearest: 0.weight, 2.weight)",
        holds="errors",
    ),
    "rename onto an existing key": Wrong(
        with_rule('{op: rename, map: {"0.weight": "2.weight"}}'),
        ["net.pth", TARGET, "-r", "recipe.yaml"],
        2,
        "CKF205",
        "error: recipe.yaml:3: rename: rule 1 makes '2.weight' from '0.weight', which is already there, "
        "made by the checkpoint itself (drop or rename one of them first)",
        holds="errors",
    ),
    "unknown model": Wrong(
        make_nothing,
        ["net.pth", "torchvision:mobilnet_v2"],
        2,
        "CKF210",
        "error: torchvision:mobilnet_v2: torchvision has no model 'mobilnet_v2' "
        "(did you mean mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large?)",
    ),
    "output exists": Wrong(
        make_output, ["net.pth", TARGET], 2, "CKF212", "error: out.safetensors: exists (--force replaces it)"
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_line_and_nothing_written(name: str, net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = WRONG[name]
    wrong.make(net)
    before = listing(net)
    assert call("adapt", *wrong.args, "-o", "out.safetensors") == wrong.status
    assert capsys.readouterr() == ("", f"{wrong.line}\n")
    assert written_since(before, net) == {}


@pytest.mark.parametrize("name", WRONG)
def test_json(name: str, net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = WRONG[name]
    wrong.make(net)
    before = listing(net)
    assert call("adapt", *wrong.args, "-o", "out.safetensors", "--json") == wrong.status
    out, err = capsys.readouterr()
    assert err == f"{wrong.line}\n"
    document = json.loads(out)
    assert document["schema_version"] == 1
    fault = document["error"] if wrong.holds == "error" else document["errors"][0]
    assert fault.keys() == {"code", "where", "message", "hint"}
    assert fault["code"] == wrong.code
    assert fault["message"] in wrong.line
    assert written_since(before, net) == {}


def written_since(before: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """Every file that is new or different, the interpreter's caches aside."""
    now = {name: data for name, data in listing(folder).items() if "__pycache__" not in name}
    return {name: data for name, data in now.items() if before.get(name) != data} | {
        name: b"gone" for name in before.keys() - now.keys() if "__pycache__" not in name
    }


def test_no_traceback_in_a_process_of_its_own(net: Path) -> None:
    make_hostile(net)
    found = spawn("adapt", "hostile.pth", TARGET, "-o", "out.pth", cwd=net)
    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr.startswith("error: hostile.pth: holds no tensor") and found.stderr.count("\n") == 1
    assert not (net / "pwned").exists()


def test_a_hostile_value_beside_tensors_is_named_and_not_run(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({**torch.load("net.pth"), "extra": RunsCommand()}, "hostile.pth")
    assert call("adapt", "hostile.pth", TARGET, "-o", "out.pth") == 0
    assert "note: hostile.pth: unpickling would call posix.system; ckptfix does not" in capsys.readouterr().err
    assert not Path("pwned").exists()
    assert list(torch.load("out.pth", weights_only=True)) == ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte; where none may be mounted, a folder under a limit of as many bytes a file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
        == 0
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_full_disk(name: str, net: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_net(net / "large.pth", classes=400_000)
    target = f"{TARGET}?classes=400000"
    out = small_disk / name
    out.write_bytes(b"the old file")
    assert call("adapt", "large.pth", target, "-o", out, "--force") == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {out}: cannot write: ") and captured.err.count("\n") == 1
    assert listing(small_disk) == {name: b"the old file"}
    assert call("adapt", "large.pth", target, "-o", out, "--force", "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert [fault["code"] for fault in document["errors"]] == ["CKF403"]
    assert document["written"] is None
    assert listing(small_disk) == {name: b"the old file"}
