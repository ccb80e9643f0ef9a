"""Sharded checkpoints and folders: what transformers writes, and indexes that lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptfix.api import target
from ckptfix.errors import AmbiguousSource, CkptfixError, MalformedFile, NoTensors, TruncatedFile, UnknownFormat
from ckptfix.formats import open_checkpoint

from ..weights import load_minilm, minilm
from .making import assert_same


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as transformers writes it in shards of at most 20 MB."""
    folder = tmp_path_factory.mktemp("minilm")
    load_minilm().save_pretrained(folder, max_shard_size="20MB")
    return folder


def _pair(folder: Path) -> dict[str, torch.Tensor]:
    """Two shards of every kind of dtype, with their index."""
    tensors = {
        "a.bf16": torch.randn(3, 5).bfloat16(),
        "a.f8": torch.randn(7).to(torch.float8_e4m3fn),
        "a.bool": torch.tensor([True, False, True]),
        "b.scalar": torch.tensor(2.5),
        "b.empty": torch.empty(0, 4),
        "b.complex": torch.randn(3, dtype=torch.complex64),
    }
    shards = {f"model-0000{n}-of-00002.safetensors": letter for n, letter in ((1, "a"), (2, "b"))}
    for name, letter in shards.items():
        save_file({key: value for key, value in tensors.items() if key[0] == letter}, folder / name)
    names = {letter: name for name, letter in shards.items()}
    _write_index(
        folder, {key: names[key[0]] for key in tensors}, total_size=sum(value.nbytes for value in tensors.values())
    )
    return tensors


def _write_index(folder: Path, weight_map: object, **metadata: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return path


def _map(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return found


def test_a_folder_of_transformers_is_read_bit_for_bit(published: Path) -> None:
    shards = sorted(published.glob("*.safetensors"))
    assert len(shards) > 2
    expected = {key: tensor for shard in shards for key, tensor in load_file(shard).items()}
    for name in (published, published / "model.safetensors.index.json"):
        checkpoint = open_checkpoint(name)
        assert checkpoint.format == "sharded safetensors"
        assert checkpoint.notes == ()
        assert checkpoint.path == published / "model.safetensors.index.json"
        assert_same(checkpoint, {key: expected[key] for key in checkpoint.tensors})
        assert checkpoint.manifest.tensors.keys() == expected.keys()
    whole = open_checkpoint(minilm() / "model.safetensors")
    assert {key: spec for key, spec in whole.manifest.tensors.items() if key in expected} == dict(
        checkpoint.manifest.tensors
    )


def test_shards_of_every_dtype(tmp_path: Path) -> None:
    tensors = _pair(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert_same(checkpoint, {key: tensors[key] for key in checkpoint.tensors})
    assert len(checkpoint.tensors) == len(tensors)
    assert checkpoint.notes == ()


@pytest.mark.parametrize("legacy", [False, True])
def test_shards_of_torch_keep_the_order_of_definition(tmp_path: Path, legacy: bool) -> None:
    parts = [{"z": torch.ones(2), "a": torch.zeros(3, dtype=torch.int16)}, {"m": torch.randn(4)}]
    weight_map = {}
    for number, part in enumerate(parts, 1):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save(part, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        weight_map |= dict.fromkeys(part, name)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(sorted(weight_map.items()))}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == f"sharded torch {'legacy' if legacy else 'zip'}"
    assert_same(checkpoint, parts[0] | parts[1])


def test_what_the_index_leaves_out_is_read_and_said(tmp_path: Path) -> None:
    tensors = _pair(tmp_path)
    weight_map = _map(tmp_path)
    del weight_map["a.f8"]
    _write_index(tmp_path, weight_map, total_size=5)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.manifest.tensors.keys() == tensors.keys()
    size = sum(value.nbytes for value in tensors.values())
    assert [note.split(":")[0] for note in checkpoint.notes] == [
        f"the index gives another total_size than the {size} bytes that its tensors take",
        "the shards hold 1 tensor that the index does not name",
    ]


def test_a_cache_of_the_hub_keeps_its_files_elsewhere(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    tensors = _pair(blobs)
    for number, file in enumerate(sorted(blobs.iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert open_checkpoint(snapshot).manifest.tensors.keys() == tensors.keys()


def _names(name: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _write_index(folder, _map(folder) | {"a.f8": name})

    return change


def _link(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}-outside"
    outside.mkdir()
    (folder / "model-00001-of-00002.safetensors").rename(outside / "x.safetensors")
    (folder / "model-00001-of-00002.safetensors").symlink_to(outside / "x.safetensors")


def _fifo(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").unlink()
    os.mkfifo(folder / "model-00001-of-00002.safetensors")


def _directory(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").unlink()
    (folder / "model-00001-of-00002.safetensors").mkdir()


def _missing(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").unlink()


def _twice(folder: Path) -> None:
    save_file({"a.f8": torch.zeros(1), "b.scalar": torch.zeros(1)}, folder / "model-00002-of-00002.safetensors")


def _itself(folder: Path) -> None:
    (folder / "other.index.json").write_text('{"weight_map": {"a": "other.index.json"}}')
    _names("other.index.json")(folder)


def _text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text) and None


_BROKEN: dict[str, tuple[Callable[[Path], None], type[CkptfixError], str]] = {
    "a name that climbs": (_names("../x.safetensors"), MalformedFile, "no plain name"),
    "an absolute name": (_names("/etc/passwd"), MalformedFile, "no plain name"),
    "a name with NUL": (_names("a\0b"), MalformedFile, "no plain name"),
    "an empty name": (_names(""), MalformedFile, "no plain name"),
    "a name that is no text": (_names(5), MalformedFile, "no weight_map"),
    "a link": (_link, MalformedFile, "leads out of the folder"),
    "a FIFO": (_fifo, CkptfixError, "not a regular file"),
    "a folder": (_directory, CkptfixError, "is a directory"),
    "a missing shard": (_missing, TruncatedFile, "lacks 1 of its 2 shards: model-00001-of-00002.safetensors"),
    "a key that its shard lacks": (
        _names("model-00002-of-00002.safetensors"),
        MalformedFile,
        "'a.f8' is in model-00002-of-00002.safetensors, it lies in model-00001",
    ),
    "a key that no shard has": (
        lambda folder: _write_index(folder, _map(folder) | {"new": "model-00002-of-00002.safetensors"}) and None,
        MalformedFile,
        "no shard has it",
    ),
    "a key in two shards": (_twice, MalformedFile, "'a.f8' lies in two shards"),
    "an index among the shards": (_itself, UnknownFormat, "text file"),
    "no weight_map": (_text("{}"), MalformedFile, "no weight_map"),
    "an empty weight_map": (_text('{"weight_map": {}}'), MalformedFile, "empty"),
    "a key twice": (_text('{"weight_map": {"a": "x", "a": "y"}}'), MalformedFile, "twice"),
    "a nest": (_text('{"a":' + "[" * 100_000), MalformedFile, "not JSON"),
    "metadata that is a list": (_text('{"weight_map": {"a": "x"}, "metadata": []}'), MalformedFile, "no JSON object"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_an_index_that_lies_is_refused(tmp_path: Path, case: str) -> None:
    change, kind, text = _BROKEN[case]
    _pair(tmp_path)
    change(tmp_path)
    with pytest.raises(kind, match=text.replace(".", r"\.")) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_which_file_of_a_folder_is_read(tmp_path: Path) -> None:
    with pytest.raises(NoTensors, match="a folder without a checkpoint"):
        open_checkpoint(tmp_path)
    torch.save({"w": torch.ones(2)}, tmp_path / "ours.pth")
    assert open_checkpoint(tmp_path).manifest["w"].shape == (2,)
    torch.save({"w": torch.ones(3)}, tmp_path / "theirs.pth")
    with pytest.raises(AmbiguousSource, match="2 files that may be meant: ours"):
        open_checkpoint(tmp_path)
    torch.save({"w": torch.ones(4)}, tmp_path / "pytorch_model.bin")
    assert open_checkpoint(tmp_path).manifest["w"].shape == (4,)
    save_file({"w": torch.ones(5)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.manifest["w"].shape == (5,)
    assert checkpoint.notes == ("model.safetensors is read; pytorch_model.bin beside it is not",)
    (tmp_path / ".metadata").mkdir()  # as an editor leaves it
    assert open_checkpoint(tmp_path).path == tmp_path / "model.safetensors"


def test_folders_of_folders_are_asked_for(tmp_path: Path) -> None:
    for name in ("unet", "vae"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.ones(5)}, tmp_path / name / "diffusion_pytorch_model.safetensors")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(AmbiguousSource, match="its folders do: unet, vae") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint == f"name one: {tmp_path / 'unet'}"
    assert open_checkpoint(tmp_path / "unet").manifest["w"].shape == (5,)


def test_shards_without_an_index_are_a_run_that_was_cut_short(tmp_path: Path) -> None:
    _pair(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    # A trainer's own settings are no checkpoint of the model.
    torch.save({"lr": torch.ones(1)}, tmp_path / "training_args.bin")
    with pytest.raises(TruncatedFile, match="2 shards without their index"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path / "model-00001-of-00002.safetensors").format == "safetensors"


def test_the_index_of_a_variant(tmp_path: Path) -> None:
    tensors = _pair(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.rename(tmp_path / "model.safetensors.index.fp16.json")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path == tmp_path / "model.safetensors.index.fp16.json"
    assert checkpoint.manifest.tensors.keys() == tensors.keys()
    assert target(checkpoint.path).manifest.tensors == checkpoint.manifest.tensors


def test_a_shard_that_the_index_does_not_name_is_noted(tmp_path: Path) -> None:
    _pair(tmp_path)
    for name in ("other-00001-of-00002.safetensors", "model.safetensors.bak", "model-00003.safetensors"):
        (tmp_path / name).write_bytes(b"no shard of this set")
    assert open_checkpoint(tmp_path).notes == ()
    save_file({"c": torch.ones(1)}, tmp_path / "model-00003-of-00003.safetensors")
    note = "1 shard beside the index that it does not name: model-00003-of-00003.safetensors: left out"
    assert open_checkpoint(tmp_path).notes == (note,)
    assert open_checkpoint(tmp_path / "model.safetensors.index.json").notes == (note,)


@pytest.mark.parametrize(("wrong", "more"), [(1, ""), (2, "; so it is with 1 more key")])
def test_keys_that_their_shards_lack_are_counted(wrong: int, more: str, tmp_path: Path) -> None:
    _pair(tmp_path)
    first, second = sorted(set(_map(tmp_path).values()))
    named = _map(tmp_path) | dict.fromkeys(["a.bf16", "a.f8"][:wrong], second)
    _write_index(tmp_path, named)
    with pytest.raises(MalformedFile) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.message == f"the index says that 'a.bf16' is in {second}, it lies in {first}{more}"
