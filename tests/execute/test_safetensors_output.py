"""What a written `.safetensors` file looks like, to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckptfix import __version__, adapt
from ckptfix.errors import MalformedFile, UnsupportedOutput
from ckptfix.formats import open_checkpoint, output_format

from .making import DTYPES, assert_same, bytes_of, convert, pattern

SMALL = {"w": torch.tensor([[1.0, 2.0]]), "flag": torch.tensor([True]), "n": torch.tensor(7)}


def header_of(path: Path) -> tuple[bytes, bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], data[8 + length :]


def test_golden_bytes(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    convert(SMALL, out)
    header, data = header_of(out)
    receipt = json.loads(json.loads(header)["__metadata__"]["ckptfix"])
    digests = {key: blake3(bytes_of(tensor)).hexdigest() for key, tensor in SMALL.items()}
    canonical = [{"n": "I64 []", "w": "F32 [1, 2]", "flag": "BOOL [1]"}, {"format": "pt"}]
    words = json.dumps({**receipt, "header": "0" * 64}, separators=(",", ":"))
    header_digest = blake3(json.dumps([*canonical, words], sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert receipt == {
        "schema_version": 3,
        "ckptfix": __version__,
        "recipe": receipt["recipe"],
        "source": receipt["source"],
        "dtype": None,
        "header": header_digest,
        "tensors": {key: {"made": "loaded", "rule": None, "blake3": digest} for key, digest in digests.items()},
    }
    text = json.dumps(json.dumps(receipt, separators=(",", ":")))
    expected = (
        f'{{"__metadata__":{{"format":"pt","ckptfix":{text}}},'
        '"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},'
        '"flag":{"dtype":"BOOL","shape":[1],"data_offsets":[16,17]}}'
    ).encode()
    assert header.rstrip(b" ") == expected
    assert data == bytes.fromhex("07000000000000000000803f0000004001")


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    tensors = {f"{dtype}.{n}": pattern(dtype, (n,)) for n in (1, 3) for dtype in DTYPES if dtype != torch.complex128}
    out = tmp_path / "out.safetensors"
    convert(tensors, out)
    for key, ref in open_checkpoint(out).tensors.items():
        assert ref.storage.offset % tensors[key].element_size() == 0, key


def test_every_dtype_and_the_odd_shapes_come_back(tmp_path: Path) -> None:
    tensors = {
        f"{dtype}.{shape}": pattern(dtype, shape)
        for dtype in DTYPES
        if dtype != torch.complex128
        for shape in ((), (3,), (0,), (2, 0, 3), (2, 3))
    }
    out = tmp_path / "out.safetensors"
    convert(tensors, out)
    assert_same(load_file(out), tensors)


def test_what_the_format_cannot_hold(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    for key, tensor in {"c": torch.zeros(1, dtype=torch.complex128), "__metadata__": torch.zeros(1)}.items():
        with pytest.raises(UnsupportedOutput, match=key):
            convert({key: tensor}, out)
    assert not out.exists()


def test_the_source_s_metadata_is_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    save_file({"w": torch.zeros(1)}, source, metadata={"format": "tf", "author": "A. Ünal", "licence": "MIT"})
    adapt(source, source, out)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert {key: metadata[key] for key in ("format", "author", "licence")} == {
        "format": "pt",
        "author": "A. Ünal",
        "licence": "MIT",
    }
    through = tmp_path / "out.pth"
    adapt(source, source, through)
    again = tmp_path / "again.safetensors"
    adapt(through, through, again)
    with safe_open(again, "pt") as file:
        assert {key: file.metadata()[key] for key in ("author", "licence")} == {"author": "A. Ünal", "licence": "MIT"}


def test_aliases_are_doubled(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    out = tmp_path / "out.safetensors"
    convert({"a": shared, "b": shared, "view": shared[:3]}, out)
    assert_same(load_file(out), {"a": shared, "b": shared, "view": shared[:3]})


def test_strange_keys(tmp_path: Path) -> None:
    keys = ["", " ", "a\nb", "ключ", "🔥", '"', "\\", "\x00"]
    tensors = {key: torch.full((1,), float(number)) for number, key in enumerate(keys)}
    out = tmp_path / "out.safetensors"
    convert(tensors, out)
    assert_same(load_file(out), tensors)


def test_metadata_that_other_readers_would_refuse(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"author": "\ud800"}}).encode()
    source = tmp_path / "source.safetensors"
    source.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(MalformedFile, match="the metadata 'author' is not Unicode"):
        open_checkpoint(source)
    form = output_format(source)
    with pytest.raises(UnsupportedOutput, match="cannot have the metadata 'author'"):
        form.lay_out({}, {}, {"author": "\ud800"}, "{}")
