"""Distributed checkpoints, saved by real process groups, against what torch makes of them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

from ckptfix.api import check, target
from ckptfix.errors import CkptfixError, MalformedFile, TruncatedFile, UnknownFormat
from ckptfix.formats import Reader, open_checkpoint, open_contents

from .distributed_save import AXES, WORLD, tensors
from .making import assert_same

_ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes of a gloo group save together."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.formats.distributed_save"]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=_ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(WORLD)
    ]
    for rank in ranks:
        _, complaint = rank.communicate(timeout=120)
        assert rank.returncode == 0, complaint
    return folder


def _flat(value: Any, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {path: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, torch.Tensor] = {}
    for name, inner in items:
        found |= _flat(inner, f"{path}.{name}" if path else str(name))
    return found


def _by_torch(folder: Path, into: Path) -> Any:
    dcp_to_torch_save(folder, into / "whole.pth")
    return torch.load(into / "whole.pth", weights_only=False)


def test_chunks_of_two_ranks_are_joined(saved: Path, tmp_path: Path) -> None:
    folder = saved / "tensors"
    assert len(list(folder.glob("*.distcp"))) == WORLD
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.format, checkpoint.select, checkpoint.opaque) == ("torch distributed", "model", ())
    expected = tensors()
    assert checkpoint.manifest.tensors.keys() == expected.keys()
    assert_same(checkpoint, {key: expected[key] for key in checkpoint.tensors})
    # The test cuts what it means to cut.
    assert {key for key, ref in checkpoint.tensors.items() if len(ref.storages) == WORLD} == AXES.keys() - {"one row"}
    by_torch = _flat(_by_torch(folder, tmp_path)["model"])
    assert_same(checkpoint, {key: by_torch[key] for key in checkpoint.tensors})
    assert open_checkpoint(f"{folder}/.metadata#model").manifest == checkpoint.manifest


def test_a_model_of_fsdp_with_its_optimizer(saved: Path, tmp_path: Path) -> None:
    by_torch = _by_torch(saved / "fsdp", tmp_path)
    checkpoint = open_checkpoint(f"{saved}/fsdp#model")
    expected = _flat(by_torch["model"])
    assert "0.weight" in expected
    assert_same(checkpoint, {key: expected[key] for key in checkpoint.tensors})
    assert len(checkpoint.tensors) == len(expected)
    assert checkpoint.optimizers == ("optimizer",)
    whole = open_checkpoint(f"{saved}/fsdp#.")
    everything = _flat(by_torch)
    assert len(everything) > 2 * len(expected)
    assert_same(whole, {key: everything[key] for key in whole.tensors})
    assert len(whole.tensors) == len(everything)


def test_one_process_without_a_group(tmp_path: Path) -> None:
    state = {"net": {"w": torch.randn(3, 2), "tied": None, "h": torch.randn(4).half()}, "step": 7, "names": ["a"]}
    state["net"]["tied"] = state["net"]["w"]  # type: ignore[index,call-overload]
    dcp.save(state, checkpoint_id=tmp_path / "one", no_dist=True)
    checkpoint = open_checkpoint(tmp_path / "one")
    assert checkpoint.select == "net"
    assert_same(checkpoint, {key: _flat(state["net"])[key] for key in checkpoint.tensors})
    assert set(open_checkpoint(f"{tmp_path}/one#.").ignored) == {"step", "names"}


def test_a_long_tensor_is_joined_in_steps(saved: Path) -> None:
    ref = open_checkpoint(saved / "tensors").tensors["long"]
    with Reader() as reader:
        chunks = list(reader.chunks(ref))
    assert len(chunks) > 1
    assert b"".join(chunks) == bytes(tensors()["long"].numpy().data)


def _rewrite(folder: Path, change: Callable[[Metadata], object]) -> None:
    path = folder / ".metadata"
    metadata: Metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


def _place(metadata: Metadata, **fields: Any) -> None:
    for index, info in metadata.storage_data.items():
        if index.fqn == "b":
            for name, value in fields.items():
                setattr(info, name, value)


def _chunk(metadata: Metadata) -> Any:
    return metadata.state_dict_metadata["b"].chunks[0]  # type: ignore[union-attr]


def _double(metadata: Metadata) -> None:
    metadata.state_dict_metadata["b"].chunks *= 2  # type: ignore[union-attr]


def _foreign(metadata: Metadata) -> None:
    metadata.storage_data[MetadataIndex("ghost")] = _StorageInfo("__0_0.distcp", 0, 10)


_BROKEN: dict[str, tuple[Callable[[Metadata], object], type[CkptfixError], str]] = {
    "a file above": (lambda m: _place(m, relative_path="../x"), MalformedFile, "no plain name"),
    "an absolute file": (lambda m: _place(m, relative_path="/etc/passwd"), MalformedFile, "no plain name"),
    "a file with NUL": (lambda m: _place(m, relative_path="a\0"), MalformedFile, "no plain name"),
    "a missing file": (
        lambda m: _place(m, relative_path="__7_0.distcp"),
        TruncatedFile,
        "lacks 1 of its 2 files: __7_0",
    ),
    "a place beyond the end": (lambda m: _place(m, offset=10**6), TruncatedFile, "ends at byte"),
    "a place at 2^70": (lambda m: _place(m, offset=2**70), MalformedFile, "no possible place"),
    "a negative place": (lambda m: _place(m, offset=-1), MalformedFile, "no possible place"),
    "a negative length": (lambda m: _place(m, length=-1), MalformedFile, "no possible place"),
    "a length of text": (lambda m: _place(m, length="9"), MalformedFile, "where an item lies"),
    "another item's place": (lambda m: _place(m, offset=0), MalformedFile, "lie on the same bytes"),
    "half an item": (lambda m: _place(m, length=700), CkptfixError, "no zip directory"),
    "a compressor": (lambda m: _place(m, transform_descriptors=["zstd"]), UnknownFormat, "transformed"),
    "a chunk that is shorter": (lambda m: setattr(_chunk(m), "sizes", torch.Size([2])), MalformedFile, "2 elements"),
    "a chunk beyond": (lambda m: setattr(_chunk(m), "offsets", torch.Size([2])), MalformedFile, "where a chunk"),
    "a chunk of two axes": (lambda m: setattr(_chunk(m), "sizes", torch.Size([2, 2])), MalformedFile, "has 2 axes"),
    "a chunk twice": (_double, MalformedFile, "where a chunk"),
    "no chunk": (lambda m: m.state_dict_metadata["b"].chunks.clear(), MalformedFile, "hold 0 elements"),  # type: ignore[union-attr]
    "another shape": (
        lambda m: setattr(m.state_dict_metadata["b"], "size", torch.Size([9])),
        MalformedFile,
        "hold 4 elements, the tensor 9",
    ),
    "another dtype": (
        lambda m: setattr(m.state_dict_metadata["b"].properties, "dtype", torch.int32),  # type: ignore[union-attr]
        MalformedFile,
        "a chunk is F32",
    ),
    "an item of nobody": (_foreign, CkptfixError, "same bytes"),
    "a shape of 2^62": (
        lambda m: setattr(m.state_dict_metadata["b"], "size", torch.Size([2**62])),
        CkptfixError,
        "more elements",
    ),
    "no places": (lambda m: setattr(m, "storage_data", None), MalformedFile, "where the tensors lie"),
    "two values at one place": (
        lambda m: m.planner_data.update({"b": m.planner_data["a"]}),
        MalformedFile,
        "one place",
    ),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_metadata_that_lie_are_refused(tmp_path: Path, case: str) -> None:
    change, kind, text = _BROKEN[case]
    dcp.save({"a": torch.ones(3, 2), "b": torch.arange(4.0)}, checkpoint_id=tmp_path, no_dist=True)
    _rewrite(tmp_path, change)
    with pytest.raises(kind, match=text) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("__import__('os').mkdir('ran')",)


def test_what_unpickling_would_run_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dcp.save({"a": torch.ones(3), "note": _Attack()}, checkpoint_id="saved", no_dist=True)
    metadata: Any = pickle.loads(Path("saved/.metadata").read_bytes())
    metadata.storage_meta.modules.append(_Attack())
    Path("saved/.metadata").write_bytes(pickle.dumps(metadata))
    contents = open_contents("saved")
    assert [(place, str(value)) for place, value in contents.opaque] == [
        ("storage_meta.modules[0]", "builtins.eval"),
        ("note: the root", "builtins.eval"),
    ]
    assert not Path("ran").exists()
    assert_same(open_checkpoint("saved"), {"a": torch.ones(3)})


def test_a_damaged_chunk_is_found_by_its_checksum(tmp_path: Path) -> None:
    dcp.save({"a": torch.ones(300)}, checkpoint_id=tmp_path, no_dist=True)
    file = tmp_path / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[data.index(b"\0\0\x80\x3f" * 4)] ^= 1
    file.write_bytes(data)
    checkpoint = open_checkpoint(tmp_path)
    with Reader() as reader, pytest.raises(CkptfixError, match="CRC-32"):
        reader.read(checkpoint.tensors["a"])


@pytest.mark.parametrize("data", [b"\x80\x04N.", b"\x80\x04}.", pickle.dumps({"a": 1})])
def test_another_pickle_is_no_metadata(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(data)
    with pytest.raises(UnknownFormat, match="not the metadata"):
        open_checkpoint(tmp_path)


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    code = """
import json, resource, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from ckptfix.formats import Reader, open_checkpoint
folder = Path(sys.argv[1])
names = {f"w.{n}": f"model-{n:05d}-of-00400.safetensors" for n in range(400)}
for number, (key, name) in enumerate(names.items()):
    save_file({key: torch.full((3,), float(number))}, folder / name)
(folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
with Reader() as reader:
    found = {key: reader.read(ref) for key, ref in open_checkpoint(folder).tensors.items()}
    again = reader.read(open_checkpoint(folder).tensors["w.0"])
    reader.check_unchanged()
assert again == found["w.0"] and len(found) == 400
assert all(torch.frombuffer(found[f"w.{n}"], dtype=torch.float32).tolist() == [n] * 3 for n in range(400))
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_file_of_ranks_alone_is_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    file = min((saved / "tensors").glob("*.distcp"))
    with pytest.raises(UnknownFormat, match="one file of a distributed checkpoint") as caught:
        open_checkpoint(file)
    assert caught.value.hint == "name the folder that it lies in"
    for one in (saved / "tensors").glob("*.distcp"):
        (tmp_path / one.name).write_bytes(one.read_bytes())
    with pytest.raises(TruncatedFile, match=r"2 shards without their \.metadata"):
        open_checkpoint(tmp_path)


def test_a_distributed_checkpoint_is_a_target_too(saved: Path) -> None:
    folder = saved / "tensors"
    assert target(f"shapes:{folder}").manifest.tensors == open_checkpoint(folder).manifest.tensors
    assert check(folder, folder).compatible
