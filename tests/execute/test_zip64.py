"""Archives over 4 GiB, laid out for real in sparse files: only the headers take room."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch

from ckptfix.formats import list_formats, open_checkpoint
from ckptfix.tensors import DType, TensorSpec

GIB = 1 << 30


def write_sparse(path: Path, tensors: dict[str, TensorSpec]) -> None:
    """Write all but the tensors, whose checksums are not asked for."""
    form = next(known for known in list_formats() if ".pth" in known.suffixes)
    layout = form.lay_out(tensors, {key: key for key in tensors}, {}, "{}")
    with path.open("wb") as file:
        file.truncate(layout.nbytes)
        for offset, data in layout.seal("{}", dict.fromkeys(tensors, 0)):
            assert offset + len(data) <= layout.nbytes
            os.pwrite(file.fileno(), data, offset)
        for key, offset in layout.offsets.items():
            os.pwrite(file.fileno(), key.encode(), offset)
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_large_entry_and_entries_after_it(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    tensors = {
        "first": TensorSpec((8,), DType.U8),
        "large": TensorSpec((5 * GIB,), DType.U8),
        "after": TensorSpec((8,), DType.U8),
        "wide": TensorSpec((GIB + 7,), DType.F32),
        "last": TensorSpec((8,), DType.U8),
    }
    write_sparse(path, tensors)
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert [sizes[f"archive/data/{n}"] for n in range(5)] == [spec.nbytes for spec in tensors.values()]
        with archive.open("archive/data/1") as entry:  # Python reads the local header and compares the names
            assert entry.read(5) == b"large"
    checkpoint = open_checkpoint(path)
    assert dict(checkpoint.manifest) == tensors
    loaded = torch.load(path, mmap=True, weights_only=True)
    for key, spec in tensors.items():
        assert tuple(loaded[key].shape) == spec.shape
        assert bytes(loaded[key].view(torch.uint8)[: len(key)].tolist()) == key.encode()


def test_an_entry_at_the_very_limit(tmp_path: Path) -> None:
    for nbytes in (0xFFFFFFFE, 0xFFFFFFFF, 0x100000000):
        path = tmp_path / f"{nbytes}.pth"
        write_sparse(path, {"first": TensorSpec((nbytes,), DType.U8), "last": TensorSpec((4,), DType.U8)})
        with zipfile.ZipFile(path) as archive:
            assert archive.getinfo("archive/data/0").file_size == nbytes
        assert torch.load(path, mmap=True, weights_only=True)["last"].shape == (4,)
        assert open_checkpoint(path).manifest["first"].nbytes == nbytes


def test_more_entries_than_sixteen_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "many.pth"
    tensors = {f"k{number}": TensorSpec((1,), DType.U8) for number in range(66_000)}
    form = next(known for known in list_formats() if ".pth" in known.suffixes)
    layout = form.lay_out(tensors, {key: key for key in tensors}, {}, "{}")
    with path.open("wb") as file:
        file.truncate(layout.nbytes)
        for offset, data in layout.seal("{}", dict.fromkeys(tensors, 0xD202EF8D)):  # the CRC-32 of one zero byte
            os.pwrite(file.fileno(), data, offset)
    assert len(open_checkpoint(path).manifest) == 66_000
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 66_004
