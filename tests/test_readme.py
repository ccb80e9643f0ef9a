"""The README is run: its files are written, its commands and code executed, their output compared to the letter."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from ckptfix.cli.main import run
from tests.weights import mobilenet_v2

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_console(block: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the commands of a console block and write the block anew."""
    lines: list[str] = []
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        program, *args = shlex.split(line.removeprefix("$ "))
        assert program == "ckptfix", line
        status = run(args)
        captured = capsys.readouterr()
        said = captured.err + captured.out if status == 1 and not captured.out else captured.out + captured.err
        lines += [line, *said.splitlines()]
        if status:
            lines.append(f"[exit {status}]")
    return "\n".join(lines)


def test_every_command_and_file_of_the_readme_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(mobilenet_v2(), tmp_path)
    names: dict[str, object] = {}
    commands = 0
    for kind, block in BLOCK.findall(README.read_text(encoding="utf-8")):
        if kind == "yaml" and block.startswith("# "):
            Path(block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")
        elif kind == "python":
            exec(block, names)
        elif kind == "console":
            commands += block.count("$ ")
            told = "\n".join(line.rstrip() for line in block.strip().splitlines())
            assert run_console(block, capsys) == told
    assert commands == 12
    assert Path("prepared/manifest.json").exists()
    assert not Path("half.safetensors").exists()


def test_the_readme_lists_every_command_and_op() -> None:
    import click

    from ckptfix.cli.main import cli
    from ckptfix.rules import rule_types

    text = README.read_text(encoding="utf-8")
    commands = cli.list_commands(click.Context(cli))
    assert commands == [name for name in commands if f"| `{name} " in text]
    assert list(rule_types()) == [op for op in rule_types() if f"| `{op}` |" in text]
