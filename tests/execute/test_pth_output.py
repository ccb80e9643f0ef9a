"""What a written `.pth` file looks like to torch, to zip readers, and to the byte."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckptfix import adapt
from ckptfix.formats import open_checkpoint

from .making import DTYPES, assert_same, convert, pattern


@pytest.mark.parametrize("options", [{}, {"mmap": True}], ids=["read", "mapped"])
def test_every_dtype_and_the_odd_shapes_come_back(options: dict[str, bool], tmp_path: Path) -> None:
    tensors = {
        f"{dtype}.{shape}": pattern(dtype, shape)
        for dtype in DTYPES
        for shape in ((), (3,), (0,), (2, 0, 3), (2, 3), (300,))
    }
    out = tmp_path / "out.pth"
    convert(tensors, out)
    loaded = torch.load(out, weights_only=True, **options)
    assert type(loaded) is dict
    assert_same(loaded, tensors)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in loaded.values())


@pytest.mark.parametrize("name", ["out.pth", "out.pt", "out.bin"])
def test_it_is_a_sound_zip_archive_as_torch_lays_it_out(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    convert({"a": torch.arange(5.0), "b": torch.arange(3)}, out)
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "archive/data.pkl",
            "archive/byteorder",
            "archive/version",
            "archive/data/0",
            "archive/data/1",
            "archive/ckptfix.json",
        ]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/data/0") == torch.arange(5.0).numpy().tobytes()
        assert json.loads(archive.read("archive/ckptfix.json"))["tensors"].keys() == {"a", "b"}


def test_storages_are_aligned_to_64_bytes(tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    convert({f"k{n}": torch.zeros(n) for n in (1, 3, 20, 7)}, out)
    assert {ref.storage.offset % 64 for ref in open_checkpoint(out).tensors.values()} == {0}


def test_aliases_stay_one_storage(tmp_path: Path) -> None:
    shared = torch.arange(1000.0)
    out = tmp_path / "out.pth"
    convert({"a": shared, "b": shared, "part": shared[:10], "turned": shared.reshape(10, 100).T}, out)
    loaded = torch.load(out, weights_only=True)
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()
    assert loaded["part"].data_ptr() != loaded["a"].data_ptr()
    assert torch.equal(loaded["turned"], shared.reshape(10, 100).T)
    assert out.stat().st_size < 3 * 4000


def test_a_copied_tensor_is_one_storage(tmp_path: Path) -> None:
    source, want, out = tmp_path / "source.pth", tmp_path / "want.pth", tmp_path / "out.pth"
    torch.save({"wte": torch.arange(1000.0)}, source)
    torch.save({"wte": torch.zeros(1000), "head": torch.zeros(1000)}, want)
    adapt(source, want, out, "ckptfix: 1\nrules:\n  - {op: copy, from: wte, to: head}\n")
    loaded = torch.load(out, weights_only=True)
    assert loaded["head"].data_ptr() == loaded["wte"].data_ptr()
    assert out.stat().st_size < 2 * 4000


def test_the_old_receipt_is_not_kept_as_metadata(tmp_path: Path) -> None:
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    convert({"a": torch.zeros(2)}, first)
    adapt(first, first, second)
    assert first.read_bytes() == second.read_bytes()


def test_metadata_of_safetensors_is_kept_beside_the_receipt(tmp_path: Path) -> None:
    source, out = tmp_path / "source.safetensors", tmp_path / "out.pth"
    save_file({"w": torch.zeros(1)}, source, metadata={"author": "Ü"})
    adapt(source, source, out)
    assert open_checkpoint(out).metadata.keys() == {"author", "ckptfix"}
    assert open_checkpoint(out).metadata["author"] == "Ü"


def test_strange_keys_and_many_of_them(tmp_path: Path) -> None:
    keys = ["", " ", "a\nb", "ключ", "🔥", "a/b", *(f"layer.{i}.weight" for i in range(2000))]
    tensors = {key: torch.full((1,), float(number)) for number, key in enumerate(keys)}
    out = tmp_path / "out.pth"
    convert(tensors, out)
    assert_same(torch.load(out, weights_only=True), tensors)
