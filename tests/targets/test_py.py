"""`py:`: the user's own code, with all that may go wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from ckptfix import target
from ckptfix.errors import TargetBuildError, UnknownTarget

from ..cli.running import spawn


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(name: str, body: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(f"import torch\nfrom torch import nn\n{body}\n")


BUILD = "def build(out=2, bias=True):\n    return nn.Linear(3, out, bias=bias)"


def test_a_module_of_the_working_directory() -> None:
    write("pkg_one/__init__.py", "")
    write("pkg_one/model.py", BUILD)
    assert target("py:pkg_one.model:build?out=7&bias=false").manifest["weight"].shape == (7, 3)
    assert list(target("py:pkg_one.model:build?bias=false").manifest) == ["weight"]


def test_a_file(folder: Path) -> None:
    write("sub/model.py", BUILD)
    assert target("py:sub/model.py:build?out=4").manifest["weight"].shape == (4, 3)
    assert target(f"py:{folder}/sub/model.py:build").manifest["weight"].shape == (2, 3)


def test_a_class_is_a_factory() -> None:
    write("klass.py", "class Net(nn.Linear):\n    def __init__(self, width=3):\n        super().__init__(width, 2)")
    found = target("py:klass.py:Net?width=9")
    assert found.manifest["weight"].shape == (2, 9)
    assert found.manifest.modules == {"": "Net(in_features=9, out_features=2, bias=True)"}


def test_what_a_factory_imports_is_found_when_it_is_called() -> None:
    write("sub/layers.py", "width = 5")
    write("sub/lazy.py", "def build():\n    from layers import width\n    return nn.Linear(width, 2)")
    found = target("py:sub/lazy.py:build")
    assert found.manifest["weight"].shape == (2, 5)
    assert isinstance(found.must_build(0), nn.Linear)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("3", 3),
        ("true", True),
        ("1e-3", 0.001),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("gelu", "gelu"),
        ("a%26b", "a&b"),
        ("", ""),
    ],
)
def test_query_values_are_json_or_text(value: str, shown: object) -> None:
    write("echo.py", "seen = []\ndef build(x):\n    seen.append(x)\n    return nn.Identity()")
    target(f"py:echo.py:build?x={value}")
    assert sys.modules["_ckptfix_target_echo"].seen[-1] == shown


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("py:model.py:biuld", "no 'biuld' in model.py (did you mean build"),
        ("py:model.py:constant", "'constant' cannot be called"),
        ("py:none.py:build", "no such file: none.py"),
        ("py:nowhere.model:build", "no module 'nowhere' (run from the folder that holds it, or install it)"),
        ("py:model.py", "no factory is named (write py:package.module:factory)"),
        ("py:model.py:build?out", "'out' is no option (write scheme:name?key=value&key=value)"),
    ],
)
def test_what_is_not_there(uri: str, message: str) -> None:
    write("model.py", f"{BUILD}\nconstant = 3")
    with pytest.raises(UnknownTarget) as caught:
        target(uri)
    assert str(caught.value).startswith(f"{uri}: {message}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('at import')", "importing broken.py raised ValueError: at import"),
        ("import sys; sys.exit(0)", "importing broken.py raised SystemExit: 0"),
        ("import not_there_at_all", "importing broken.py needs 'not_there_at_all'"),
        ("def build(:", "importing broken.py raised SyntaxError: "),
        ("def build():\n    raise ValueError('in the\\nfactory')", "the constructor raised ValueError: in the"),
        ("def build():\n    raise SystemExit(0)", "the constructor raised SystemExit: 0"),
        ("def build():\n    return 3", "the constructor raised TypeError: 'build' gave a int, not a torch.nn.Module"),
        ("def build():\n    return nn.LazyLinear(3)", "a lazy parameter has no shape before the first forward pass"),
    ],
)
def test_code_that_fails(body: str, message: str) -> None:
    write("broken.py", body)
    with pytest.raises(TargetBuildError) as caught:
        target("py:broken.py:build")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_constructor_that_needs_the_cpu_gets_it_and_that_is_noted() -> None:
    write("cpu.py", "def build():\n    n = int(torch.ones(3).sum())\n    return nn.Linear(n, 2)")
    found = target("py:cpu.py:build")
    assert found.manifest["weight"].shape == (2, 3)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("built on the CPU, since the meta device failed: ")
    assert "\n" not in found.notes[0]


def test_the_cpu_s_global_generator_and_the_gpus_are_left_alone() -> None:
    write("noisy.py", "def build():\n    float(torch.rand(1))\n    return nn.Linear(3, 2)")
    before = torch.get_rng_state()
    seeds_for_gpus = torch.cuda._lazy_seed_tracker.get_calls()
    target("py:noisy.py:build").must_build(5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.cuda._lazy_seed_tracker.get_calls() == seeds_for_gpus


def test_seeds_are_torch_s_own() -> None:
    write("model.py", BUILD)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = nn.Linear(3, 2)
    assert torch.equal(target("py:model.py:build").must_build(3).weight, expected.weight)


def test_a_script_that_exits_does_not_pass_for_a_compatible_checkpoint(folder: Path) -> None:
    write("script.py", f"{BUILD}\nraise SystemExit(0)")
    torch.save(nn.Linear(9, 9).state_dict(), "net.pth")
    found = spawn("check", "net.pth", "py:script.py:build", cwd=folder)
    assert (found.returncode, found.stdout) == (2, "")
