"""Zip containers that torch did not write itself, and those that two readers understand differently."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from ckptfix.errors import CorruptTensor, MalformedFile, UnknownFormat
from ckptfix.formats import Reader, open_checkpoint, open_contents

from .making import assert_same, mapping, pickle_of, tensor, write, zip_bytes


def test_reads_a_zip_that_keeps_no_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(8.0), "empty": torch.zeros(0)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert_same(checkpoint, {"w": torch.arange(8.0), "empty": torch.zeros(0)})
    assert checkpoint.tensors["w"].storage.crc32 is None


def test_finds_a_damaged_pickle(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(8.0)}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes().replace(b"weight", b"weighs")
    with pytest.raises(MalformedFile, match=r"data.pkl has CRC-32 .* the archive says"):
        open_contents(write(tmp_path / "y.pth", data))


def test_reads_big_endian_storages(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.0, 3.25, 0.0])
    data = struct.pack(">4f", *values.tolist())
    body = pickle_of(mapping(w=tensor()))
    path = write(tmp_path / "x.pth", zip_bytes(body, {"byteorder": b"big", "data/0": data}))
    assert_same(open_checkpoint(path), {"w": values})
    path = write(tmp_path / "y.pth", zip_bytes(body, {"byteorder": b"middle", "data/0": data}))
    with pytest.raises(MalformedFile, match="byteorder record says b'middle'"):
        open_checkpoint(path)


_SWAPPED = {
    torch.bool: 1,
    torch.uint8: 1,
    torch.int8: 1,
    torch.int16: 2,
    torch.int32: 4,
    torch.int64: 8,
    torch.float16: 2,
    torch.bfloat16: 2,
    torch.float32: 4,
    torch.float64: 8,
    torch.complex64: 4,
    torch.complex128: 8,
}
"""dtype -> bytes that a big-endian machine writes the other way round: of a complex number, each part."""


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_every_dtype_of_a_big_endian_machine(compression: int, tmp_path: Path) -> None:
    tensors = {str(dtype): torch.randn(3, 2, dtype=torch.complex64).to(dtype) for dtype in _SWAPPED if dtype.is_complex}
    tensors |= {str(dtype): torch.randn(4, 2).to(dtype).t() for dtype in _SWAPPED if not dtype.is_complex}
    torch.save(tensors, tmp_path / "x.pth")
    widths = {str(index): _SWAPPED[tensor.dtype] for index, tensor in enumerate(tensors.values())}
    with zipfile.ZipFile(tmp_path / "x.pth") as whole, zipfile.ZipFile(tmp_path / "y.pth", "w", compression) as other:
        for name in whole.namelist():
            data = whole.read(name)
            if name.startswith("x/data/"):
                width = widths[name.removeprefix("x/data/")]
                data = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
            other.writestr(name, b"big" if name == "x/byteorder" else data)
    assert_same(open_checkpoint(tmp_path / "y.pth"), torch.load(tmp_path / "y.pth"))
    assert_same(open_checkpoint(tmp_path / "y.pth"), tensors)


def test_reads_deflated_storages(tmp_path: Path) -> None:
    # Long runs deflate to less than a thousandth: the reader must not stop at full chunks.
    tensors = {"w": torch.zeros(1 << 20), "x": torch.arange(1 << 19).float()}
    torch.save(tensors, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as stored:
        members = {info.filename: stored.read(info) for info in stored.infolist()}
    with zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as deflated:
        deflated.writestr("x/", b"")
        for name, data in members.items():
            deflated.writestr(name, data)
    checkpoint = open_checkpoint(tmp_path / "y.pth")
    assert {ref.storage.encoding for ref in checkpoint.tensors.values()} == {"deflate"}
    assert_same(checkpoint, tensors)
    broken = bytearray((tmp_path / "y.pth").read_bytes())
    broken[checkpoint.tensors["x"].storage.offset + 1000] ^= 0x10
    damaged = open_checkpoint(write(tmp_path / "z.pth", bytes(broken)))
    with Reader() as reader, pytest.raises(CorruptTensor):
        reader.read(damaged.tensors["x"])


def test_reads_zip64(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (("a/data.pkl", pickle_of(mapping(w=tensor()))), ("a/data/0", bytes(16))):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    data = buffer.getvalue()
    assert_same(open_checkpoint(write(tmp_path / "x.pth", data)), {"w": torch.zeros(4)})
    # The same with its directory's sizes and end record in the wide form.
    end = data.rindex(b"PK\5\6")
    count, _, offset = struct.unpack_from("<H2L", data, end + 10)
    directory = b""
    at = offset
    while at < end:
        name_len, extra_len = struct.unpack_from("<2H", data, at + 28)
        stored, size = struct.unpack_from("<2L", data, at + 20)
        header = struct.unpack_from("<L", data, at + 42)[0]
        name = data[at + 46 : at + 46 + name_len]
        extra = struct.pack("<2H3Q", 1, 24, size, stored, header)
        wide = b"\xff" * 4
        directory += data[at : at + 20] + wide * 2 + struct.pack("<2H", name_len, len(extra)) + data[at + 32 : at + 42]
        directory += wide + name + extra
        at += 46 + name_len + extra_len
    start64 = offset + len(directory)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start64, 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = write(tmp_path / "y.pth", data[:offset] + directory + record + locator + short)
    assert zipfile.is_zipfile(path)
    assert_same(open_checkpoint(path), {"w": torch.zeros(4)})


def _patched(data: bytes, find: bytes, replacement: bytes, which: int) -> bytes:
    """Replace one occurrence, counted from 0."""
    at = -1
    for _ in range(which + 1):
        at = data.index(find, at + 1)
    return data[:at] + replacement + data[at + len(find) :]


_GOOD = zip_bytes(pickle_of(mapping(w=tensor())), {"data/0": bytes(16), "data/1": bytes(16)})


def _central(field: int, form: str, value: int, *, entry: int = 1) -> bytes:
    """The good archive with a field changed in the directory's record of an entry."""
    data = bytearray(_GOOD)
    at = -1
    for _ in range(entry + 1):
        at = data.index(b"PK\1\2", at + 1)
    struct.pack_into(form, data, at + field, value)
    return bytes(data)


def _local(field: int, form: str, value: int, *, entry: int = 1) -> bytes:
    data = bytearray(_GOOD)
    at = -1
    for _ in range(entry + 1):
        at = data.index(b"PK\3\4", at + 1)
    struct.pack_into(form, data, at + field, value)
    return bytes(data)


def _end(field: int, form: str, value: int) -> bytes:
    data = bytearray(_GOOD)
    struct.pack_into(form, data, data.rindex(b"PK\5\6") + field, value)
    return bytes(data)


_ZIPS = {
    "duplicate": (
        _patched(_patched(_GOOD, b"a/data/1", b"a/data/0", 0), b"a/data/1", b"a/data/0", 0),
        "'a/data/0' twice",
    ),
    "outside": (_GOOD.replace(b"a/data/1", b"b/data/1"), "'b/data/1' outside of 'a'"),
    "climbing": (_GOOD.replace(b"a/data/1", b"../../.x"), "outside of 'a'"),
    "other name inside": (_patched(_GOOD, b"a/data/0", b"a/data/2", 0), "another name in its local header"),
    "other method inside": (_local(8, "<H", 8), "another encoding in its local header"),
    "other size inside": (_local(22, "<L", 15), "another size or CRC-32"),
    "other crc inside": (_local(14, "<L", 1), "another size or CRC-32"),
    "encrypted": (_central(8, "<H", 1), "is encrypted"),
    "encrypted inside": (_local(6, "<H", 1), "another encoding"),
    "bzip2": (_central(10, "<H", 12), "compression method 12"),
    "two sizes": (_central(20, "<L", 15), "stored in 15 bytes and declares 16"),
    "overlap": (_central(42, "<L", 0), "another name in its local header"),
    "no header there": (_central(42, "<L", 5), "no local header at byte 5"),
    "wide sizes missing": (_central(24, "<L", 0xFFFFFFFF), "lacks its zip64 sizes"),
    "several disks": (_end(4, "<H", 1), "one part of a zip archive of several"),
    "wrong count": (_end(10, "<H", 7), "lists 3 entries and declares 7"),
    "wrong place": (_end(16, "<L", 3), "its end record at"),
    "trailing": (_GOOD + b"more", "bytes after the end"),
    "prefixed": (_GOOD[:4] + b"...." + _GOOD[4:], "its end record at"),
}


@pytest.mark.parametrize("case", _ZIPS)
def test_refuses_ambiguous_archives(case: str, tmp_path: Path) -> None:
    data, message = _ZIPS[case]
    with pytest.raises(MalformedFile, match=message):
        open_contents(write(tmp_path / "x.pth", data))


def test_refuses_overlapping_entries(tmp_path: Path) -> None:
    # `data/0` holds, inside its own bytes, the local header and the bytes of `data/1`.
    inner_name = b"a/data/1"
    inner = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 8, 0, 0, 0, 0, 0, 0, len(inner_name), 0) + inner_name + bytes(16)
    outer = zip_bytes(pickle_of(mapping(w=tensor())), {"data/0": inner, "data/1": bytes(16)})
    inside = outer.index(inner)
    central = bytearray(outer)
    at = central.rindex(b"PK\1\2")
    struct.pack_into("<L", central, at + 42, inside)
    with pytest.raises(MalformedFile, match="'a/data/0' and 'a/data/1' overlap"):
        open_contents(write(tmp_path / "x.pth", bytes(central)))


def test_refuses_an_entry_that_runs_into_the_directory(tmp_path: Path) -> None:
    data = bytearray(_GOOD)
    at = data.rindex(b"PK\1\2")
    struct.pack_into("<2L", data, at + 20, 1 << 20, 1 << 20)
    local = data.rindex(b"PK\3\4")
    struct.pack_into("<2L", data, local + 18, 1 << 20, 1 << 20)
    with pytest.raises(MalformedFile, match="runs past the zip directory"):
        open_contents(write(tmp_path / "x.pth", bytes(data)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"readme.txt": b"", "a.npy": b""}, "is a NumPy archive, not a torch checkpoint"),
        ({"x/readme.txt": b""}, "is a zip archive without data.pkl"),
        ({"x/y/data.pkl": b""}, "data.pkl in an inner folder"),
    ],
)
def test_tells_other_archives(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(UnknownFormat, match=message):
        open_contents(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({}, "uses storage '0', the archive lacks it"),
        ({"data/0": bytes(15)}, "takes 16 bytes, its entry in the archive has 15"),
        ({"data/0": bytes(17)}, "takes 16 bytes, its entry in the archive has 17"),
    ],
)
def test_refuses_storages_that_do_not_fit(records: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.pth", zip_bytes(pickle_of(mapping(w=tensor())), records))
    with pytest.raises(MalformedFile, match=message):
        open_contents(path)
