"""The container from before 1.6: what contradicts itself is refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
import torch

from ckptfix.errors import MalformedFile
from ckptfix.formats import open_checkpoint, open_contents

from .making import CONTAINERS, assert_same, write


def _legacy(path: Path, tensors: dict[str, torch.Tensor]) -> tuple[bytes, int]:
    """A legacy file and the offset of the list of keys."""
    torch.save(tensors, path, **CONTAINERS["torch legacy"])
    data = path.read_bytes()
    return data, data.rindex(b"\x80\x02]")


def test_legacy_refuses_what_contradicts_itself(tmp_path: Path) -> None:
    data, keys = _legacy(tmp_path / "x.pth", {"w": torch.arange(4.0)})
    listed = data[keys : data.index(b".", keys) + 1]
    counted = data[keys + len(listed) :]
    assert counted[:8] == struct.pack("<q", 4)
    key = listed[listed.index(b"X") :].split(b"q")[0]
    cases = {
        "lists 0 storages, its object uses 1": b"\x80\x02]." + counted,
        "not the same": b"\x80\x02](" + key + b"X\x01\x00\x00\x00ze." + counted,
        "a key twice": b"\x80\x02](" + key + key + b"e." + counted,
        "other than text": b"\x80\x02]K\x01a." + counted,
        "has 5 elements, the object says 4": listed + struct.pack("<q", 5) + counted[8:] + bytes(4),
        "has -1 elements": listed + struct.pack("<q", -1) + counted[8:],
        "has 3 bytes after its last storage": listed + counted + bytes(3),
    }
    for message, tail in cases.items():
        with pytest.raises(MalformedFile, match=message):
            open_contents(write(tmp_path / "y.pth", data[:keys] + tail))


def test_legacy_reads_storage_views(tmp_path: Path) -> None:
    data, _ = _legacy(tmp_path / "x.pth", {"w": torch.arange(6.0)})
    whole = data.replace(b"K\x06Ntq", b"K\x06(X\x01\x00\x00\x00vK\x02K\x03ttq", 1)
    # The tensor views three elements of the view, which begins at the third element of the storage.
    assert whole != data
    narrowed = whole.replace(b"QK\x00K\x06\x85", b"QK\x00K\x03\x85", 1)
    assert narrowed != whole
    assert_same(open_checkpoint(write(tmp_path / "y.pth", narrowed)), {"w": torch.arange(6.0)[2:5]})
    beyond = narrowed.replace(b"K\x02K\x03tt", b"K\x02K\x05tt", 1)
    with pytest.raises(MalformedFile, match="leaves its 6 elements"):
        open_contents(write(tmp_path / "z.pth", beyond))
    with pytest.raises(MalformedFile, match="ends at element 6 of a storage of 3"):
        open_contents(write(tmp_path / "z.pth", whole))


def test_legacy_of_a_big_endian_machine_is_little_endian_too(tmp_path: Path) -> None:
    data, _ = _legacy(tmp_path / "x.pth", {"w": torch.arange(4.0)})
    swapped = data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert (swapped != data) == (sys.byteorder == "little")
    assert_same(open_checkpoint(write(tmp_path / "y.pth", swapped)), {"w": torch.arange(4.0)})
