"""Opening files: the fixtures, what is no checkpoint, and what is never imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptfix.errors import (
    AccessFailed,
    AmbiguousSource,
    CkptfixError,
    ReadFailed,
    SourceNotFound,
    TruncatedFile,
    UnknownFormat,
)
from ckptfix.formats import Reader, list_formats, open_checkpoint, open_contents

from .making import assert_same, write

_FIXTURES = Path(__file__).parents[2] / "fixtures"


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fixtures_make", _FIXTURES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "kind"), [("zip.pth", "torch zip"), ("legacy.pth", "torch legacy"), ("tiny.safetensors", "safetensors")]
)
def test_fixtures_hold_the_small_net(name: str, kind: str) -> None:
    path = _FIXTURES / name
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == kind
    loaded = load_file(path) if kind == "safetensors" else torch.load(path)
    assert_same(checkpoint, {key: loaded[key] for key in checkpoint.tensors})
    assert set(checkpoint.tensors) == set(_maker().build_state_dict())
    assert path.stat().st_size < 20_000


def test_the_nested_fixture_holds_two_state_dicts_and_an_optimizer() -> None:
    path = _FIXTURES / "nested.pth"
    with pytest.raises(AmbiguousSource):
        open_checkpoint(path)
    loaded = torch.load(path)
    for select in ("state_dict", "model_ema"):
        checkpoint = open_checkpoint(f"{path}#{select}")
        assert_same(checkpoint, dict(loaded[select]))
        assert checkpoint.optimizers == ("optimizer",)
    assert path.stat().st_size < 20_000


def test_the_hostile_fixture_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = open_checkpoint(_FIXTURES / "hostile.pth")
    assert_same(checkpoint, {"weight": torch.arange(6.0).reshape(2, 3)})
    assert [(at, value.name, value.args) for at, value in checkpoint.opaque] == [
        ("extra", "system", ("touch pwned-by-pickle",))
    ]
    assert not list(tmp_path.iterdir())


def test_fixtures_can_be_made_again(tmp_path: Path) -> None:
    _maker().make(tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in _FIXTURES.iterdir() if path.suffix in (".pth", ".safetensors"))
    for name in made:
        old, new = (open_checkpoint(folder / name, select=".") for folder in (_FIXTURES, tmp_path))
        assert old.manifest.tensors == new.manifest.tensors
        with Reader() as reader:
            for key in old.tensors:
                mine, theirs = (reader.read(one.tensors[key]) for one in (old, new))
                if name == "nested.pth" and not key.startswith("model_ema"):
                    continue  # one training step: its last bits depend on the processor
                assert mine == theirs, (name, key)


def test_every_format_is_found_once() -> None:
    assert sorted(known.name for known in list_formats()) == [
        "npy",
        "npz",
        "pickle",
        "safetensors",
        "sharded checkpoint",
        "torch distributed",
        "torch distributed file",
        "torch legacy",
        "torch tar",
        "torch zip",
    ]


def test_no_file_is_of_two_formats() -> None:
    for path in _FIXTURES.iterdir():
        if path.suffix in (".pth", ".safetensors"):
            head = path.read_bytes()[:512]
            assert sum(known.recognises(head, path) for known in list_formats()) == 1


_NO_CHECKPOINTS = {
    "empty": (b"", TruncatedFile, "is empty"),
    "text": (b"these are not weights\n", UnknownFormat, "is a text file"),
    "long text": ("й".encode() * 300 + b"x", UnknownFormat, "is a text file"),
    "json": (b'{"a": 1, "b": 2}', UnknownFormat, "is a text file"),
    "json at byte 8": (b'12345678{"a": 1}', UnknownFormat, "is a text file"),
    "page": (b"\n<!DOCTYPE html><html>", UnknownFormat, "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", UnknownFormat, "git-lfs pointer"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), UnknownFormat, "an HDF5 file"),
    "noise": (bytes(range(255, 0, -1)), UnknownFormat, "no checkpoint of a known format .*torch zip"),
}


@pytest.mark.parametrize("case", _NO_CHECKPOINTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tells_what_is_no_checkpoint(case: str, suffix: str, tmp_path: Path) -> None:
    data, error, message = _NO_CHECKPOINTS[case]
    path = write(tmp_path / f"x{suffix}", data)
    with pytest.raises(error, match=message) as caught:
        open_contents(path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_named_safetensors_that_is_a_zip_is_read_as_one(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "x.safetensors")
    assert open_checkpoint(tmp_path / "x.safetensors").format == "torch zip"
    save_file({"w": torch.ones(1)}, tmp_path / "x.pth")
    assert open_checkpoint(tmp_path / "x.pth").format == "safetensors"


def test_refuses_what_is_no_regular_file_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    start = time.perf_counter()
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path / "loop"):
        with pytest.raises(ReadFailed) as caught:
            open_contents(path)
        assert caught.value.exit_code == 4
        assert str(path) in str(caught.value)
    for missing in (tmp_path / "nowhere", write(tmp_path / "file", b"x") / "inside", Path("a\0b")):
        with pytest.raises(SourceNotFound):
            open_contents(missing)
    with pytest.raises(AccessFailed):
        open_contents(tmp_path / ("x" * 5000))
    assert time.perf_counter() - start < 1


def test_an_unreadable_file_is_a_failed_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pth", b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the administrator reads everything
        with pytest.raises(UnknownFormat):
            open_contents(path)
    else:
        with pytest.raises(ReadFailed, match="permission denied"):
            open_contents(path)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "x.pth")
    ref = open_checkpoint(tmp_path / "x.pth").tensors["w"]
    with Reader() as reader:
        reader.read(ref)
        reader.check_unchanged()
        write(tmp_path / "x.pth", (tmp_path / "x.pth").read_bytes() + b"more")
        with pytest.raises(ReadFailed, match="changed while it was read"):
            reader.check_unchanged()


def test_imports_neither_torch_nor_numpy_nor_pickle() -> None:
    files = ["zip.pth", "legacy.pth", "tiny.safetensors", "hostile.pth"]
    program = f"""
import sys
from pathlib import Path
import ckptfix.formats as formats
for name in {files}:
    checkpoint = formats.open_checkpoint(Path({str(_FIXTURES)!r}) / name)
    with formats.Reader() as reader:
        for ref in checkpoint.tensors.values():
            reader.read(ref)
print(sorted({{"torch", "numpy", "pickle", "_pickle", "pickletools", "pydantic", "re2", "zipfile"}} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "[]\n"
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "ckptfix.formats.pickle.machine" in imported
    assert not imported & {"torch", "numpy", "pickle", "_pickle"}


@pytest.mark.parametrize("kind", ["torch zip", "torch legacy", "safetensors"])
def test_lists_a_thousand_tensors_at_once(kind: str, tmp_path: Path) -> None:
    tensors = {f"blocks.{index}.weight": torch.zeros(2) for index in range(1000)}
    if kind == "safetensors":
        save_file(tensors, tmp_path / "x")
    else:
        torch.save(tensors, tmp_path / "x", _use_new_zipfile_serialization=kind == "torch zip")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert len(open_checkpoint(tmp_path / "x").tensors) == 1000
        seconds.append(time.perf_counter() - start)
    # Well under 0.1 s on an idle machine; the bound leaves room for one that tests run on in parallel.
    assert min(seconds) < 0.4


def test_errors_are_one_line_with_the_path_once(tmp_path: Path) -> None:
    for name in ("zip.pth", "legacy.pth", "tiny.safetensors"):
        path = write(tmp_path / name, (_FIXTURES / name).read_bytes()[:-40])
        with pytest.raises(CkptfixError) as caught:
            open_checkpoint(path)
        assert str(caught.value).count(str(path)) == 1
        assert caught.value.to_json()["where"] == str(path)
