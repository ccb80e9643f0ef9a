"""What reaches the terminal: answers on stdout, the rest on stderr, nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .running import ROOT, call, spawn, start_replacing

HOSTILE = "evil\x1b]0;owned\x07\x1b[2J\u202e\nerror: fake"
"""A key that would retitle the window, clear the screen, turn the text around and forge a line."""


def is_harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("command", ["inspect", "inspect --tree", "inspect --stats", "check", "plan", "verify"])
def test_hostile_keys_are_escaped(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({HOSTILE: torch.ones(2), "good": torch.ones(1)}, path)
    other = tmp_path / "other.safetensors"
    save_file({"good": torch.ones(1)}, other)
    name, *flags = command.split()
    call(name, path, *([other] if name != "inspect" else []), *flags)
    out, err = capsys.readouterr()
    assert r"evil\x1b]0;owned\x07\x1b[2J\u202e\nerror: fake" in out
    assert is_harmless(out) and is_harmless(err)
    assert not any(line.startswith("error: fake") for line in out.splitlines())


def test_hostile_keys_are_escaped_in_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"good": torch.ones(1), HOSTILE: torch.ones(2)}, path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text('ckptfix: 1\nrules:\n  - {op: rename, map: {"*": same}}\n')
    assert call("check", path, path, "-r", recipe) == 2
    err = capsys.readouterr().err
    assert "evil" in err and is_harmless(err) and err.count("\n") == 1


def test_what_a_model_prints_goes_to_stderr(net: Path) -> None:
    (net / "chatty.py").write_text(
        "print('at import')\nfrom net import build as make\n"
        "class Chatty(__import__('torch').nn.Sequential):\n"
        "    def forward(self, x):\n        print('in forward')\n        return super().forward(x)\n"
        "def build():\n    print('in the factory')\n    return Chatty(*make())\n"
    )
    found = spawn("verify", "net.pth", "py:chatty:build", "--input", "2,3", "--json", cwd=net)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["forward"] is True
    for text in ("at import", "in the factory", "in forward"):
        assert text in found.stderr


def test_answers_on_stdout_and_progress_on_stderr(net: Path) -> None:
    found = spawn("adapt", "net.pth", "py:net:build", "-o", "out.pth", cwd=net)
    assert found.stderr == ""
    assert found.stdout.splitlines()[-1].startswith("wrote out.pth (")


def on_terminal(args: list[str], folder: Path, **environment: str) -> tuple[str, str]:
    """Run with stderr on a terminal; give stdout and what the terminal got."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptfix", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment},
        stdout=subprocess.PIPE,
        stderr=secondary,
    )
    os.close(secondary)
    shown = b""
    while True:
        try:
            part = os.read(primary, 4096)
        except OSError:  # how a pseudo-terminal says that the other side is closed
            break
        shown += part
    os.close(primary)
    out, _ = process.communicate(timeout=60)
    return out.decode(), shown.decode()


def test_colour_only_where_wanted(net: Path) -> None:
    args = ["check", "none.pth", "none.pth"]
    environment = dict.fromkeys(("NO_COLOR", "FORCE_COLOR"), "")
    assert "\x1b[31m" in on_terminal(args, net, **environment)[1]
    assert "\x1b" not in on_terminal(args, net, **{**environment, "NO_COLOR": "1"})[1]
    assert "\x1b" not in spawn(*args, cwd=net).stderr


def test_progress_bar_on_a_terminal(net: Path) -> None:
    out, shown = on_terminal(["adapt", "net.pth", "net.pth", "-o", "out.pth", "--json"], net)
    assert json.loads(out)["written"] == "out.pth"
    assert "adapt" in shown and "100%" in shown


@pytest.mark.parametrize(("command", "status"), [("inspect", 0), ("check", 1)])
def test_a_closed_pipe_is_quiet_and_keeps_the_status(command: str, status: int, tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({f"layer.{i}": torch.zeros(1) for i in range(5000)}, path)
    other = tmp_path / "other.safetensors"
    save_file({f"other.{i}": torch.zeros(1) for i in range(5000)}, other)
    args = [command, path] if command == "inspect" else [command, path, other]
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptfix", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == status
    process.stderr.close()


@pytest.mark.parametrize("args", [["inspect", "net.pth"], ["--help"], ["--version"], ["inspect", "--help"]])
def test_a_full_stdout_is_an_error(args: list[str], net: Path) -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "ckptfix", *args],
            cwd=net,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (found.returncode, found.stderr) == (4, "error: stdout: cannot write: no space left on device\n")


@pytest.mark.parametrize(("name", "sent"), [("out.safetensors", signal.SIGINT), ("out.pth", signal.SIGTERM)])
def test_an_interrupt_leaves_the_old_file_whole(name: str, sent: signal.Signals, tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}}).encode()
    source = tmp_path / "large.safetensors"
    source.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(source, 8 + len(header) + (1 << 32))
    folder = tmp_path / "out"
    folder.mkdir()
    for _ in range(5):  # on a busy machine the file may be whole before the signal comes
        process = interrupted(source, folder / name, sent)
        if process.returncode:
            break
    assert process.returncode == 130
    assert process.stdout == "" and process.stderr.strip() == "interrupted; nothing was left half written"
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_bytes() == b"the old file"


def interrupted(source: Path, out: Path, sent: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Send a signal to an adapt that has begun to write."""
    process = start_replacing(source, out, b"the old file")
    time.sleep(0.1)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (["chekc", "a", "b"], "Did you mean 'check'?"),
        (["check", "a", "b", "--jsn"], "Did you mean '--json'?"),
        (["adapt", "a", "b", "--froce"], "Did you mean '--force'?"),
    ],
)
def test_misspelt_commands_and_options(args: list[str], suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*args) == 2
    out, err = capsys.readouterr()
    assert out == "" and suggestion in err


def test_usage_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "only-one", "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["code"] == "CKF200"
    assert document["error"]["message"] == "Missing argument 'TARGET'."


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    for name in ("inspect", "check", "plan", "adapt", "verify", "finetune", "run", "schema"):
        assert f"\n  {name} " in shown
        assert call(name, "--help") == 0
        assert f"Usage: ckptfix {name} " in capsys.readouterr().out


def test_help_is_fast(tmp_path: Path) -> None:
    start = time.perf_counter()
    assert spawn("--help", cwd=tmp_path).returncode == 0
    assert time.perf_counter() - start < 1.5
