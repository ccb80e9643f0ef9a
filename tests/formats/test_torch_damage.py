"""Damaged torch files: found, and never read as something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ckptfix.errors import CorruptTensor, RefusedContent, TruncatedFile
from ckptfix.formats import Reader, open_checkpoint, open_contents

from .making import CONTAINERS, bytes_of, write

container = pytest.mark.parametrize("kind", CONTAINERS)


def _refusals(path: Path) -> Iterator[str]:
    """Open, and read every tensor."""
    try:
        checkpoint = open_checkpoint(path)
        with Reader() as reader:
            for ref in checkpoint.tensors.values():
                reader.read(ref)
    except RefusedContent as error:
        yield type(error).__name__


def test_finds_every_flipped_bit_of_the_tensors_of_a_zip(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(8.0), "part": torch.arange(8.0)[2:4]}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    for ref in open_checkpoint(tmp_path / "x.pth").tensors.values():
        for byte in range(ref.storage.nbytes):
            broken = bytearray(whole)
            broken[ref.storage.offset + byte] ^= 1 << byte % 8
            assert list(_refusals(write(tmp_path / "y.pth", bytes(broken)))) == ["CorruptTensor"]


@container
def test_never_reads_a_truncated_file(kind: str, tmp_path: Path) -> None:
    torch.save({"w": torch.arange(8.0), "v": torch.zeros(3)}, tmp_path / "x.pth", **CONTAINERS[kind])
    whole = (tmp_path / "x.pth").read_bytes()
    for length in range(0, len(whole) - 1, 3):
        with pytest.raises(RefusedContent) as caught:
            open_checkpoint(write(tmp_path / "y.pth", whole[:length]))
        if length > 32 or length == 0:
            assert isinstance(caught.value, TruncatedFile), length


@container
def test_any_flipped_byte_is_read_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    torch.save({"epoch": 1, "model": model, "w": {"x": torch.zeros(2)}}, tmp_path / "x.pth", **CONTAINERS[kind])
    whole = (tmp_path / "x.pth").read_bytes()
    refused = 0
    for byte in range(0, len(whole), 3):
        broken = bytearray(whole)
        broken[byte] ^= 1 << byte % 8
        path = write(tmp_path / "y.pth", bytes(broken))
        try:
            contents = open_contents(path)
        except RefusedContent as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert contents.format == kind
    assert refused > 30


def test_a_slice_is_checked_against_the_checksum_of_its_whole_storage(tmp_path: Path) -> None:
    base = torch.arange(1000.0)
    torch.save({"part": base[:10]}, tmp_path / "x.pth")
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    with Reader() as reader:
        assert reader.read(checkpoint.tensors["part"]) == bytes_of(base[:10])
    data = bytearray((tmp_path / "x.pth").read_bytes())
    data[checkpoint.tensors["part"].storage.offset + 3999] ^= 1
    path = write(tmp_path / "y.pth", bytes(data))
    with Reader() as reader, pytest.raises(CorruptTensor, match="CRC-32"):
        reader.read(open_checkpoint(path).tensors["part"])
