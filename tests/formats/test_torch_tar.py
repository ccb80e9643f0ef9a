"""The container of the first releases: written by hand after torch's loader, and read as that loads it."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptfix.errors import CkptfixError, MalformedFile, TruncatedFile, UnknownFormat
from ckptfix.formats import Opaque, open_checkpoint, open_contents

from .making import assert_same, write


class _Pickler(pickle.Pickler):
    """Gives tensors the numbers that they have in the archive."""

    def __init__(self, file: Any, numbers: dict[int, int], protocol: int) -> None:
        super().__init__(file, protocol)
        self._numbers = numbers

    def persistent_id(self, value: object) -> object:
        return str(self._numbers[id(value)]) if isinstance(value, torch.Tensor) else None


def _members(value: Any, tensors: list[torch.Tensor], protocol: int = 2) -> dict[str, bytes]:
    """What the loader expects: each tensor is the part of a storage from its second element on, by way of a view."""
    storages, described = pickle.dumps(len(tensors), protocol), pickle.dumps(len(tensors), protocol)
    views, numbers = [], {}
    for index, tensor in enumerate(tensors):
        root, part, numbers[id(tensor)] = 100 + index, 200 + index, 300 + index
        storage = tensor.untyped_storage()
        numel = storage.nbytes() // tensor.element_size()
        kind = getattr(torch, _STORAGES[tensor.dtype])
        storages += pickle.dumps((root, "cpu", kind), protocol) + struct.pack("<q", numel + 1)
        storages += b"\x7f" * tensor.element_size() + bytes(storage)
        views.append((part, root, 1, numel))
        described += pickle.dumps((numbers[id(tensor)], part, torch.FloatTensor), protocol)
        described += struct.pack(f"<i4x{2 * tensor.dim()}q", tensor.dim(), *tensor.shape, *tensor.stride())
        described += struct.pack("<q", tensor.storage_offset())
    out = io.BytesIO()
    _Pickler(out, numbers, protocol).dump(value)
    return {
        "sys_info": pickle.dumps({"protocol_version": 1000}, protocol),
        "pickle": out.getvalue(),
        "tensors": described,
        "storages": storages + pickle.dumps(views, protocol),
    }


_STORAGES = {
    torch.float64: "DoubleStorage",
    torch.float32: "FloatStorage",
    torch.float16: "HalfStorage",
    torch.int64: "LongStorage",
    torch.int32: "IntStorage",
    torch.int16: "ShortStorage",
    torch.int8: "CharStorage",
    torch.uint8: "ByteStorage",
    torch.bool: "BoolStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.complex64: "ComplexFloatStorage",
    torch.complex128: "ComplexDoubleStorage",
}


def _pack(path: Path, members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w:", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5  # PAX needs a header of its own for a fraction
            archive.addfile(info, io.BytesIO(data))
    return path


def _tensors() -> dict[str, torch.Tensor]:
    found = {f"dtype.{name}": torch.randint(0, 2, (3, 2)).to(dtype) for dtype, name in _STORAGES.items()}
    return found | {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0),
        "transposed": torch.arange(24.0).reshape(4, 6).t(),
        "slice": torch.arange(24.0).reshape(4, 6)[1::2, ::3],
    }


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_reads(form: int, protocol: int, tmp_path: Path) -> None:
    tensors = _tensors()
    value = OrderedDict(tensors) | {"alias": tensors["scalar"]}
    path = _pack(tmp_path / "x.pth", _members(value, list(tensors.values()), protocol), form)
    loaded = torch.load(path, weights_only=False)
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "torch tar"
    assert_same(checkpoint, dict(loaded))
    assert_same(checkpoint, dict(value))
    assert checkpoint.aliases == (("scalar", "alias"),)
    assert checkpoint.opaque == ()


def test_lists_what_a_pickle_would_have_called(tmp_path: Path) -> None:
    weight = torch.ones(2)
    members = _members({"w": weight}, [weight])
    members["pickle"] = members["pickle"].replace(b"}q", b"cposix\nsystem\nX\x01\0\0\0x\x85R0}q", 1)
    contents = open_contents(_pack(tmp_path / "x.pth", members))
    assert [str(value) for _, value in contents.opaque] == ["posix.system"]
    assert_same(open_checkpoint(tmp_path / "x.pth"), {"w": weight})


def test_keys_of_python_2_are_bytes(tmp_path: Path) -> None:
    weight = torch.ones(2)
    members = _members({b"w": weight}, [weight], protocol=3)
    assert_same(open_checkpoint(_pack(tmp_path / "x.pth", members)), {"w": weight})


def test_a_class_of_a_pickled_module_comes_with_its_source(tmp_path: Path) -> None:
    weight = torch.ones(2)
    members = _members({"w": weight}, [weight])
    with_source = b"(cnets\nNet\nX\x06\0\0\0net.pyX\x04\0\0\0pass\x87Q)\x81}X\x01\0\0\0aK\x01sb"
    members["pickle"] = members["pickle"][:-1].replace(b"}q", b"}X\x03\0\0\0net" + with_source[1:] + b"s0}q", 1) + b"."
    (place, found), *_ = open_contents(_pack(tmp_path / "x.pth", members)).opaque
    assert isinstance(found, Opaque)
    assert (place, str(found)) == ("(discarded)", "nets.Net")


def _changed(member: str, find: bytes, replacement: bytes) -> dict[str, bytes]:
    weight = torch.arange(4.0)
    members = _members({"w": weight}, [weight])
    assert find in members[member]
    return members | {member: members[member].replace(find, replacement, 1)}


_count4, _count5 = struct.pack("<q", 4), struct.pack("<q", 5)
_BROKEN = {
    "another object": (_changed("pickle", b"300", b"301"), "uses object 301, the archive lacks it"),
    "no number": (_changed("pickle", b"300", b"3x0"), "not a number"),
    "view beyond": (_changed("storages", b"K\x01K\x04t", b"K\x02K\x04t"), "leaves its 5 elements"),
    "storage too long": (_changed("storages", _count5, struct.pack("<q", 500)), "before its STOP"),
    "storage negative": (_changed("storages", _count5, struct.pack("<q", -5)), "no possible number of elements"),
    "extent beyond": (_changed("tensors", _count4, _count5), "ends at element 5 of a storage of 4"),
    "rank": (_changed("tensors", struct.pack("<i4x", 1), struct.pack("<i4x", 65)), "65 axes"),
    "of no storage": (_changed("tensors", b"K\xc8", b"K\xc9"), "used as a storage and is none"),
    "many": (_changed("tensors", b"K\x01.", b"J\xff\xff\xff\x7f."), "no possible number"),
    "trailing": (_changed("pickle", b"s.", b"s.xyz"), "3 bytes after the end of a member"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_refuses_what_contradicts_itself(case: str, tmp_path: Path) -> None:
    members, message = _BROKEN[case]
    with pytest.raises((MalformedFile, TruncatedFile), match=message):
        open_contents(_pack(tmp_path / "x.pth", members))


def test_refuses_other_archives(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    members = _members({"w": weight}, [weight])
    for others in ({"readme": b"x"}, {"pickle": members["pickle"]}, members | {"../pickle": b"x"}):
        with pytest.raises(UnknownFormat, match="is a tar archive, not a checkpoint of torch"):
            open_contents(_pack(tmp_path / "x.tar", others))
    whole = _pack(tmp_path / "x.pth", members).read_bytes()
    with pytest.raises(MalformedFile, match="twice"):
        open_contents(write(tmp_path / "y.pth", whole[: _end_of(whole)] + whole))
    with pytest.raises(MalformedFile, match="no tar header at byte 0"):
        open_contents(write(tmp_path / "y.pth", whole[:100] + b"7" + whole[101:]))


def test_refuses_a_header_that_renames_a_member(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    whole = _pack(tmp_path / "x.pth", _members({"w": weight}, [weight]), tarfile.PAX_FORMAT).read_bytes()
    assert whole.count(b" mtime=1.5") == 4
    with pytest.raises(MalformedFile, match="more than a time"):
        open_contents(write(tmp_path / "y.pth", whole.replace(b" mtime=1.5", b" path=abcd", 1)))


def _end_of(archive: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        last = opened.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


def test_every_truncated_archive_is_refused(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    whole = _pack(tmp_path / "x.pth", _members({"w": weight}, [weight])).read_bytes()
    for length in range(512, _end_of(whole), 37):
        with pytest.raises(CkptfixError) as caught:
            open_contents(write(tmp_path / "y.pth", whole[:length]))
        assert caught.value.exit_code == 3
