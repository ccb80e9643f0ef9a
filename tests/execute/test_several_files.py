"""Outputs of several files: shards with an index, and folders of torch.distributed, read by their own libraries."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ckptfix import api
from ckptfix.cli.main import run
from ckptfix.errors import (
    CkptfixError,
    InvalidCall,
    MalformedFile,
    OutputExists,
    TiedConflict,
    UnsupportedOutput,
    WriteFailed,
)
from ckptfix.execute import finished, write_set
from ckptfix.execute.workers import MOST_THREADS
from ckptfix.formats import open_checkpoint

from ..formats.making import assert_same
from ..weights import load_minilm, minilm

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


LIMIT = 200
"""The longest shard in bytes that gives five of them."""


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    draw = torch.randn(40, 8, generator=generator)
    return {
        "a.weight": draw,
        "a.half": draw[:20].half(),
        "b.bf16": draw[:9].bfloat16(),
        "b.f8": draw[0].to(torch.float8_e4m3fn),
        "b.flags": draw[1] > 0,
        "c.scalar": torch.tensor(1.5),
        "c.empty": torch.empty(0, 3),
        "c.complex": torch.complex(draw[2], draw[3]),
        "d.big": torch.arange(900, dtype=torch.int64),
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.pth"
    torch.save(_state(), path)
    return path


def _index(folder: Path) -> Any:
    return json.loads((folder / "model.safetensors.index.json").read_text())


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _hidden(folder: Path) -> list[str]:
    return [name for name in _names(folder) if name.startswith(".ckptfix")]


def test_shards_are_those_of_the_hub(source: Path, tmp_path: Path) -> None:
    out, theirs = tmp_path / "ours" / "model.safetensors", tmp_path / "theirs"
    out.parent.mkdir()
    theirs.mkdir()
    adapted = api.adapt(source, source, out, max_shard_size=LIMIT)
    save_torch_state_dict(_state(), theirs, max_shard_size=LIMIT)
    expected = _index(theirs)
    found = _index(out.parent)
    assert found["weight_map"] == expected["weight_map"]
    assert found["metadata"]["total_size"] == expected["metadata"]["total_size"]
    assert _names(out.parent) == _names(theirs)
    assert len(adapted.files) == len(_names(theirs)) > 3
    for name in set(found["weight_map"].values()):
        ours, other = load_file(out.parent / name), load_file(theirs / name)
        assert ours.keys() == other.keys()
        assert all(
            torch.equal(ours[key].view(torch.uint8), other[key].view(torch.uint8)) for key in ours if ours[key].dim()
        )
    state = _state()
    checkpoint = open_checkpoint(adapted.path)
    assert_same(checkpoint, {key: state[key] for key in checkpoint.tensors})
    assert checkpoint.notes == ()
    verified = api.verify(out.parent, source)
    assert (verified.ok, verified.values) == (True, True)


def test_transformers_loads_a_folder_of_ours(tmp_path: Path) -> None:
    original = load_minilm()
    out = tmp_path / "model"
    adapted = api.adapt(
        minilm() / "model.safetensors", minilm() / "model.safetensors", f"{out}/", max_shard_size=20_000_000
    )
    assert len(adapted.files) > 3
    (out / "config.json").write_bytes((minilm() / "config.json").read_bytes())
    loaded = load_minilm(out)
    state = original.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.state_dict().items())
    assert api.verify(out, minilm() / "model.safetensors").values


def test_what_fits_into_one_file_is_one(source: Path, tmp_path: Path) -> None:
    adapted = api.adapt(source, source, f"{tmp_path}/out/")
    assert _names(tmp_path / "out") == ["model.safetensors"]
    assert adapted.path == tmp_path / "out" / "model.safetensors"
    single = api.adapt(source, source, tmp_path / "single.safetensors")
    assert single.path.read_bytes() == adapted.path.read_bytes()


@pytest.mark.parametrize("suffix", [".bin", ".pth"])
def test_shards_of_torch(source: Path, tmp_path: Path, suffix: str) -> None:
    adapted = api.adapt(source, source, tmp_path / f"pytorch_model{suffix}", max_shard_size=LIMIT)
    assert adapted.path.name == f"pytorch_model{suffix}.index.json"
    whole: dict[str, torch.Tensor] = {}
    for file in adapted.files[:-1]:
        whole |= torch.load(file)
    checkpoint = open_checkpoint(adapted.path)
    assert_same(checkpoint, {key: _state()[key] for key in checkpoint.tensors})
    assert_same(checkpoint, {key: whole[key] for key in checkpoint.tensors})
    assert api.verify(adapted.path, source).values


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_torch_loads_a_distributed_folder(source: Path, tmp_path: Path, limit: int | None) -> None:
    adapted = api.adapt(source, source, tmp_path / "out.dcp", max_shard_size=limit)
    assert adapted.path == tmp_path / "out.dcp"
    assert len(adapted.files) == (2 if limit is None else 6)
    dcp_to_torch_save(adapted.path, tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth")
    checkpoint = open_checkpoint(adapted.path)
    assert list(checkpoint.tensors) == list(_state())
    assert_same(checkpoint, back)
    assert_same(checkpoint, _state())
    into = {key: torch.zeros_like(tensor) for key, tensor in _state().items()}
    dcp.load(into, checkpoint_id=adapted.path, no_dist=True)
    assert_same(checkpoint, into)
    verified = api.verify(adapted.path, source)
    assert (verified.ok, verified.values) == (True, True)
    for file in adapted.path.glob("*.distcp"):
        single = open_checkpoint(f"{file}#.")
        assert_same(single, {key: _state()[key] for key in single.tensors})


@pytest.mark.parametrize("out", ["out/", "out.dcp", "model.safetensors", "pytorch_model.bin"])
def test_equal_inputs_give_equal_files(source: Path, tmp_path: Path, out: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        api.adapt(source, source, f"{tmp_path}/{name}/{out}", max_shard_size=LIMIT)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    assert len(list((tmp_path / "two").rglob("*"))) == len(list((tmp_path / "one").rglob("*")))


def test_an_older_output_is_replaced_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    api.adapt(source, source, f"{out}/", max_shard_size=1000)
    (out / "config.json").write_text("{}")
    before = set(_names(out))
    with pytest.raises(OutputExists):
        api.adapt(source, source, f"{out}/", max_shard_size=3000)
    assert set(_names(out)) == before
    adapted = api.adapt(source, source, f"{out}/", max_shard_size=3000, existing="replace")
    assert set(_names(out)) == {"config.json", *(file.name for file in adapted.files)}
    assert len(open_checkpoint(out).tensors) == len(_state())
    single = api.adapt(source, source, out, existing="replace")
    assert set(_names(out)) == {"config.json", "model.safetensors"}
    assert single.files == (out / "model.safetensors",)
    # transformers would read an old `model.safetensors` rather than a new index.
    adapted = api.adapt(source, source, out, max_shard_size=3000, existing="replace")
    assert set(_names(out)) == {"config.json", *(file.name for file in adapted.files)}


def test_shards_of_two_outputs_are_never_read_as_one(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({key: tensor.clone().fill_(1) for key, tensor in _state().items()}, other)
    for name, file in (("a", source), ("b", other)):
        api.adapt(file, file, f"{tmp_path}/{name}/", max_shard_size=LIMIT)
        api.adapt(file, file, f"{tmp_path}/{name}.dcp", max_shard_size=LIMIT)
    shard = "model-00002-of-00005.safetensors"
    assert (tmp_path / "a" / shard).stat().st_size == (tmp_path / "b" / shard).stat().st_size
    (tmp_path / "a" / shard).write_bytes((tmp_path / "b" / shard).read_bytes())
    with pytest.raises(MalformedFile, match=f"{shard} was not written together with the index"):
        open_checkpoint(tmp_path / "a")
    part = "__0_1.distcp"
    (tmp_path / "a.dcp" / part).write_bytes((tmp_path / "b.dcp" / part).read_bytes())
    with pytest.raises(MalformedFile, match=r"__0_1\.distcp was not written together with the metadata"):
        open_checkpoint(tmp_path / "a.dcp")


class _Killed(BaseException):
    """A run ends here as if it were killed: nothing is cleaned up that only an error cleans."""


def _kill_at(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    module = write_set if function == "write" else finished
    real, calls = getattr(module, function), iter(range(call + 1))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise _Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(module, function, dying)


def _finished_before(call: int) -> range:
    """Say how many files may be whole when this one begins: several are written at a time."""
    return range(max(0, call - MOST_THREADS + 1), call + 1)


def _count_writes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note which files are written."""
    real, written = write_set.write, list[Path]()

    def noting(*args: Any, **kwargs: Any) -> Any:
        written.append(args[3])
        return real(*args, **kwargs)

    monkeypatch.setattr(write_set, "write", noting)
    return written


def _points() -> list[tuple[str, int]]:
    return [
        ("write", 1),
        ("write", 4),
        *(("_link", number) for number in range(5)),
        ("sync_folder", 0),
        ("sync_folder", 1),
    ]


@pytest.mark.parametrize(("function", "call"), _points())
@pytest.mark.parametrize("out", ["out/", "out.dcp"])
def test_a_run_that_ends_anywhere_leaves_nothing_mixed_and_is_taken_up(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, out: str
) -> None:
    old = tmp_path / "old.pth"
    torch.save({key: tensor.clone().zero_() for key, tensor in _state().items()}, old)
    api.adapt(old, old, f"{tmp_path}/{out}", max_shard_size=LIMIT)
    zeros = torch.load(old)
    with monkeypatch.context() as patch:
        _kill_at(patch, function, call)
        with pytest.raises(_Killed):
            api.adapt(source, source, f"{tmp_path}/{out}", max_shard_size=LIMIT, existing="replace")
    folder = tmp_path / out
    if function == "write":
        checkpoint = open_checkpoint(folder)
        assert_same(checkpoint, {key: zeros[key] for key in checkpoint.tensors})
    else:
        with pytest.raises(CkptfixError, match=r"without their|not finished: 5 files"):
            open_checkpoint(folder)
    left = _hidden(folder)
    assert len(left) in _finished_before(call) if function == "write" else len(left) == 5
    with monkeypatch.context() as patch:
        calls = _count_writes(patch)
        adapted = api.adapt(source, source, f"{tmp_path}/{out}", max_shard_size=LIMIT, existing="replace")
    assert len(calls) == 5 - len(left)
    assert _hidden(folder) == []
    checkpoint = open_checkpoint(folder)
    assert_same(checkpoint, {key: _state()[key] for key in checkpoint.tensors})
    assert _names(folder) == sorted(file.name for file in adapted.files)


@pytest.mark.parametrize("call", range(5))
def test_names_that_a_killed_run_has_given_are_its_own(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    with monkeypatch.context() as patch:
        _kill_at(patch, "_link", call)
        with pytest.raises(_Killed):
            api.adapt(source, source, f"{tmp_path}/out/", max_shard_size=LIMIT)
    assert len([name for name in _names(tmp_path / "out") if name.startswith("model-")]) == call
    with pytest.raises(CkptfixError, match=r"without their index|not finished: 5 files"):
        open_checkpoint(tmp_path / "out")
    # Not asked to replace anything: what is there is its own.
    adapted = api.adapt(source, source, f"{tmp_path}/out/", max_shard_size=LIMIT)
    assert len(open_checkpoint(adapted.path).tensors) == len(_state())
    assert _names(tmp_path / "out") == sorted(file.name for file in adapted.files)


@pytest.mark.parametrize("change", ["source", "byte", "rules", "size"])
def test_what_is_left_of_another_run_is_not_used(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    out = f"{tmp_path}/out/"
    with monkeypatch.context() as patch:
        _kill_at(patch, "write", 3)
        with pytest.raises(_Killed):
            api.adapt(source, source, out, max_shard_size=LIMIT)
    left = [tmp_path / "out" / name for name in _hidden(tmp_path / "out")]
    assert len(left) in _finished_before(3)
    recipe, limit, again = None, LIMIT, 5
    state = _state()
    if change == "source":
        state = {key: tensor.clone().zero_() for key, tensor in state.items()}
        torch.save(state, source)
    elif change == "byte":
        data = bytearray(left[0].read_bytes())
        data[-1] ^= 1
        left[0].write_bytes(data)
        again = 5 - len(left) + 1
    elif change == "rules":
        recipe = {
            "ckptfix": 1,
            "rules": [{"op": "drop", "keys": ["a.weight"]}, {"op": "fill", "keys": ["a.weight"], "value": 1.0}],
        }
        state["a.weight"] = torch.ones_like(state["a.weight"])
    else:
        limit, again = 3000, 2
    calls = _count_writes(monkeypatch)
    adapted = api.adapt(source, source, out, recipe, max_shard_size=limit)
    assert len(calls) == again
    checkpoint = open_checkpoint(adapted.path)
    assert_same(checkpoint, {key: state[key] for key in checkpoint.tensors})
    assert _hidden(tmp_path / "out") == []


def test_an_error_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "model-00003-of-00005.safetensors"
    taken.write_text("mine")
    with pytest.raises(OutputExists, match="00003"):
        api.adapt(source, source, tmp_path / "model.safetensors", max_shard_size=LIMIT)
    assert _names(tmp_path) == [taken.name, source.name]
    data = bytearray(source.read_bytes())
    data[data.index(_state()["d.big"].numpy().tobytes()[800:1600])] ^= 1
    source.write_bytes(data)
    with pytest.raises(CkptfixError, match="CRC-32"):
        api.adapt(source, source, tmp_path / "out.dcp", max_shard_size=LIMIT)
    assert _names(tmp_path) == [taken.name, source.name]


def test_what_several_files_cannot_be(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCall, match="digests"):
        api.adapt(source, source, tmp_path / "x.safetensors", max_shard_size=LIMIT, digests="none")
    with pytest.raises(InvalidCall, match="no shard is that short"):
        api.adapt(source, source, tmp_path / "x.safetensors", max_shard_size=0)
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(UnsupportedOutput):
        api.adapt(source, source, tmp_path / "x.gguf", max_shard_size=LIMIT)
    with pytest.raises(OutputExists, match="is no folder"):
        api.adapt(source, source, f"{source}/")
    assert _names(tmp_path) == ["plain.safetensors", source.name]


def test_the_source_is_not_written_over(source: Path, tmp_path: Path) -> None:
    api.adapt(source, source, f"{tmp_path}/out/", max_shard_size=LIMIT)
    for out in (tmp_path / "out", tmp_path / "out" / "model-00001-of-00005.safetensors"):
        with pytest.raises(OutputExists, match="is the source itself"):
            api.adapt(tmp_path / "out", source, out, max_shard_size=LIMIT, existing="replace")
    assert len(open_checkpoint(tmp_path / "out").tensors) == len(_state())


def test_tied_keys_in_two_shards_are_compared(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(4, 4, bias=False)
            self.two = torch.nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

    save_file({"one.weight": torch.ones(4, 4), "two.weight": torch.zeros(4, 4)}, tmp_path / "apart.safetensors")
    with pytest.raises(TiedConflict):
        api.adapt(tmp_path / "apart.safetensors", Tied(), f"{tmp_path}/out/", max_shard_size=64)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_shows_before_the_first_byte(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    recipe = {"ckptfix": 1, "rules": [{"op": "drop", "keys": ["w"]}, {"op": "fill", "keys": ["a", "b"], "value": 0}]}
    free = os.statvfs(tmp_path)
    numel = free.f_bavail * free.f_frsize // 5  # 80 % of what is free: one file would fit, two do not
    want = {"schema_version": 1, "tensors": {key: {"shape": [numel], "dtype": "F32"} for key in ("a", "b")}}
    (tmp_path / "want.json").write_text(json.dumps(want))
    with pytest.raises(WriteFailed, match="no space left"):
        api.adapt(
            tmp_path / "w.safetensors",
            tmp_path / "want.json",
            f"{tmp_path}/out/",
            recipe,
            max_shard_size=4 * numel,
            max_output=9 * numel,
        )
    assert _names(tmp_path) == ["w.safetensors", "want.json"]


def test_an_interrupted_command_is_ended_by_the_next(tmp_path: Path) -> None:
    torch.save({f"w.{n}": torch.full((1000, 1000), float(n)) for n in range(20)}, tmp_path / "source.pth")
    command = [sys.executable, "-m", "ckptfix", "adapt", "source.pth", "source.pth", "-o", "out/"]
    command += ["--max-shard-size", "4MB"]
    begun = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/.ckptfix-*.safetensors")):
        assert begun.poll() is None
        time.sleep(0.005)
    begun.send_signal(signal.SIGTERM)
    _, said = begun.communicate()
    left = _hidden(tmp_path / "out")
    assert 0 < len(left) < 20 and _names(tmp_path / "out") == left
    kept = f"{len(left)} of 20 files {'is' if len(left) == 1 else 'are'} finished and kept"
    assert begun.returncode == 130
    assert said.strip() == f"interrupted; {kept}: run the same command again, and it goes on from there"
    with pytest.raises(CkptfixError, match=rf"not finished: {len(left)} files? \.ckptfix-\* \(.*command that began it"):
        open_checkpoint(tmp_path / "out")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"(21 files, {len(left)} of them finished by an interrupted run, " in again.stdout
    assert len(_names(tmp_path / "out")) == 21
    assert_same(open_checkpoint(tmp_path / "out"), torch.load(tmp_path / "source.pth"))


def test_the_command_says_what_it_wrote(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["adapt", str(source), str(source), "-o", f"{tmp_path}/out/", "--max-shard-size", f"{LIMIT}B"]
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == f"{tmp_path}/out/model.safetensors.index.json"
    assert sorted(document["files"]) == [f"{tmp_path}/out/{name}" for name in _names(tmp_path / "out")]
    assert run(command) == 2
    assert run([*command, "--force"]) == 0
    assert "wrote " in (said := capsys.readouterr().out) and "(6 files, " in said
    assert run(["inspect", f"{tmp_path}/out"]) == 0
    assert "model.safetensors.index.json: sharded safetensors" in capsys.readouterr().out


@pytest.mark.parametrize("limits", [(None, LIMIT), (LIMIT, None)], ids=["one file first", "shards first"])
def test_one_file_and_shards_are_not_written_to_a_folder_at_once(
    tmp_path: Path, limits: tuple[int | None, int | None]
) -> None:
    """Loaders take either for the whole: the second run is refused, and the first one's output stays."""
    save_file(_state(), tmp_path / "a.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    refused: list[str] = []

    def write_too(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(WriteFailed, match="another run is writing it") as found:
                _convert(tmp_path, out, limits[1])
            refused.append(found.value.message)

    _convert(tmp_path, out, limits[0], progress=write_too)
    assert refused
    assert (out / "model.safetensors").exists() == (limits[0] is None)
    written, state = open_checkpoint(out), _state()
    assert set(written.tensors) == set(state)
    assert_same(written, {key: state[key] for key in written.tensors})


def _convert(folder: Path, out: Path, limit: int | None, **options: Any) -> None:
    source = folder / "a.safetensors"
    api.adapt(source, f"shapes:{source}", f"{out}/", max_shard_size=limit, **options)


def test_one_file_removes_what_an_interrupted_set_has_left(tmp_path: Path) -> None:
    save_file(_state(), tmp_path / "a.safetensors")
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="4 of 5 files are finished and kept"):
        _convert(tmp_path, out, LIMIT, progress=stop)
    assert len(list(out.glob(".ckptfix-*"))) > 1
    _convert(tmp_path, out, None)
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]


def test_what_is_made_by_code_does_not_wait(tmp_path: Path) -> None:
    """The next run makes it again: the code may have changed."""
    model = torch.nn.Linear(4, 4)
    save_file({"weight": torch.ones(4, 4)}, tmp_path / "a.safetensors")
    fill = {"ckptfix": 1, "rules": [{"op": "fill", "keys": ["bias"], "value": "target"}]}

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    out = f"{tmp_path}/out/"
    one_thread = 100 << 20
    with pytest.raises(KeyboardInterrupt, match="1 of 2 files is finished"):
        api.adapt(tmp_path / "a.safetensors", model, out, fill, max_shard_size=64, memory=one_thread, progress=stop)
    assert api.adapt(tmp_path / "a.safetensors", model, out, fill, max_shard_size=64).taken_up == 1


@pytest.mark.parametrize("name", ["out/", "out.dcp"])
def test_an_index_that_appears_at_the_end_is_not_replaced_and_nothing_is_left(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    last = folder / (".metadata" if name == "out.dcp" else "model.safetensors.index.json")
    real = finished.sync_folder

    def appear(path: Path) -> None:
        real(path)
        last.write_text("mine")

    monkeypatch.setattr(finished, "sync_folder", appear)
    with pytest.raises(OutputExists, match=r"exists \(--force"):
        api.adapt(source, source, f"{tmp_path}/{name}", max_shard_size=LIMIT)
    assert _names(folder) == [last.name] and last.read_text() == "mine"


@pytest.mark.parametrize("end", [OSError(errno.EIO, "input/output error"), KeyboardInterrupt()])
def test_an_output_that_is_whole_is_not_taken_away(
    end: BaseException, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails, or a signal comes, once all is there: only the folder is not synced."""
    index, fsync = tmp_path / "out" / "model.safetensors.index.json", os.fsync

    def fail(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode) and index.exists():
            raise end
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((WriteFailed, KeyboardInterrupt), match=r"input/output error|^$"):
        api.adapt(source, source, f"{tmp_path}/out/", max_shard_size=LIMIT)
    assert len(open_checkpoint(index).tensors) == len(_state())
    assert _hidden(tmp_path / "out") == []


def test_a_shard_that_appears_at_the_end_is_not_replaced(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, shard = finished._link, "model-00002-of-00005.safetensors"

    def appear(path: Path, final: Path) -> None:
        if final.name == shard:
            final.write_text("mine")
        real(path, final)

    monkeypatch.setattr(finished, "_link", appear)
    with pytest.raises(OutputExists, match=shard):
        api.adapt(source, source, f"{tmp_path}/out/", max_shard_size=LIMIT)
    assert _names(tmp_path / "out") == [shard] and (tmp_path / "out" / shard).read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "shard", "limit"),
    [
        ("out/", "model-00004-of-00003.safetensors", LIMIT),
        ("out/", "model-00004-of-00003.safetensors", None),
        ("out.dcp", "__3_0.distcp", LIMIT),
    ],
)
def test_shards_that_nothing_names_are_removed_only_when_told_to(
    out: str, shard: str, limit: int | None, source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / out
    folder.mkdir()
    others = ["model-1-of-2.safetensors", "other-00001-of-00002.safetensors"]
    for name in (shard, *others):
        (folder / name).write_text("mine")
    with pytest.raises(OutputExists, match=rf"{shard}: exists \(--force removes it\)"):
        api.adapt(source, source, f"{tmp_path}/{out}", max_shard_size=limit)
    assert _names(folder) == sorted([shard, *others])
    adapted = api.adapt(source, source, f"{tmp_path}/{out}", max_shard_size=limit, existing="replace")
    assert _names(folder) == sorted([*others, *(file.name for file in adapted.files)])


@pytest.mark.parametrize("older", ["shards", "one file"])
@pytest.mark.parametrize(("function", "call"), _points())
def test_an_output_of_other_names_is_replaced_in_one_step(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, older: str
) -> None:
    old, out = tmp_path / "old.pth", f"{tmp_path}/out/"
    torch.save({key: tensor.clone().zero_() for key, tensor in _state().items()}, old)
    api.adapt(old, old, out, max_shard_size=3000 if older == "shards" else None)
    with monkeypatch.context() as patch:
        _kill_at(patch, function, call)
        with pytest.raises(_Killed):
            api.adapt(source, source, out, max_shard_size=LIMIT, existing="replace")
    # The second syncing follows the removal of the old files.
    expected = _state() if (function, call) == ("sync_folder", 1) else torch.load(old)
    checkpoint = open_checkpoint(tmp_path / "out")
    assert_same(checkpoint, {key: expected[key] for key in checkpoint.tensors})
    adapted = api.adapt(source, source, out, max_shard_size=LIMIT, existing="replace")
    if function == "write":
        assert adapted.taken_up in _finished_before(call)
    else:
        assert adapted.taken_up == (0 if (function, call) == ("sync_folder", 1) else 5)
    assert _names(tmp_path / "out") == sorted(file.name for file in adapted.files)
    checkpoint = open_checkpoint(tmp_path / "out")
    assert_same(checkpoint, {key: _state()[key] for key in checkpoint.tensors})
