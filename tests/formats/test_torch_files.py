"""`torch.save` in both containers: every kind of tensor to the bit, and both found to be damaged when they are."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfix.errors import CorruptTensor, MalformedFile, RefusedContent, TruncatedFile, UnknownFormat
from ckptfix.formats import Reader, open_checkpoint, open_contents

from .making import assert_same, bytes_of, mapping, pickle_of, tensor, write, zip_bytes

_CONTAINERS = {"torch zip": {}, "torch legacy": {"_use_new_zipfile_serialization": False}}
_LEGACY = _CONTAINERS["torch legacy"]

container = pytest.mark.parametrize("kind", _CONTAINERS)


def _tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    numbers = torch.tensor([1.5, -0.0, float("nan"), float("inf")])
    complex_ = torch.complex(numbers, numbers.flip(0))
    found = {
        f"dtype.{str(dtype).removeprefix('torch.')}": torch.randint(0, 2, (3, 2)).to(dtype)
        for dtype in (
            torch.bool,
            torch.uint8,
            torch.int8,
            torch.uint16,
            torch.int16,
            torch.uint32,
            torch.int32,
            torch.uint64,
            torch.int64,
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
            torch.complex64,
            torch.complex128,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
            torch.float8_e4m3fnuz,
            torch.float8_e5m2fnuz,
            torch.float8_e8m0fnu,
        )
    }
    return found | {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0),
        "empty.axis": torch.zeros(3, 0, 2),
        "empty.slice": base[4:],
        "base": base,
        "alias": base,
        "transposed": base.t(),
        "column": base[:, 2],
        "every.second": base[1::2, ::3],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 300_000),
        "permuted": torch.arange(120.0).reshape(2, 3, 4, 5).permute(3, 0, 2, 1),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "buffer": torch.nn.Buffer(torch.ones(2)),
        "conjugate": complex_.conj(),
        "negative": complex_.clone().conj().imag,
        "negative.int": torch._neg_view(torch.tensor([1, -5, -(2**63)])),
        "negative.bf16": torch._neg_view(torch.tensor([1.0, 0.0], dtype=torch.bfloat16)),
        "both": torch._neg_view(complex_.conj()),
        "large": torch.randn(600_000),
        "large.transposed": torch.randn(700, 600).t(),
        "rank": torch.arange(2.0).reshape([1] * 40 + [2]).transpose(0, 40),
    }


@container
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_every_kind_of_tensor(kind: str, protocol: int, tmp_path: Path) -> None:
    tensors = _tensors()
    torch.save(tensors, tmp_path / "x.pth", pickle_protocol=protocol, **_CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert checkpoint.format == kind
    assert_same(checkpoint, tensors)
    assert checkpoint.opaque == ()
    assert ("base", "alias") in checkpoint.aliases
    assert not any("transposed" in group for group in checkpoint.aliases)


@container
def test_reads_a_training_checkpoint(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 6, 4)).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 7,
        "global_step": 2**70,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict((f"model.{key}", value) for key, value in model.state_dict().items()),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "k": {"a.ckpt": torch.tensor(0.5)}}},
        "hyper_parameters": {"lr": 1e-3, "layers": [1, 2, (3, None)], "flag": True, "names": {"a", "b"}, "z": 1 + 2j},
        "counts": Counter("aab"),
        "default": defaultdict(list, {"k": [b"raw", bytearray(b"array")]}),
        "shape": torch.Size([1, 2]),
        "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16,
    }
    torch.save(saved, tmp_path / "x.ckpt", **_CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.ckpt")
    assert checkpoint.select == "state_dict"
    assert_same(checkpoint, dict(saved["state_dict"]))
    assert checkpoint.optimizers == ("optimizer_states.0",)
    assert checkpoint.opaque == ()


@container
def test_reads_a_whole_pickled_module_as_its_state_dict(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(1, 2, 1, bias=False), norm=torch.nn.BatchNorm2d(2)))
    model.register_buffer("transient", torch.zeros(1), persistent=False)
    model.register_buffer("kept", torch.ones(1))
    torch.save({"epoch": 1, "model": model}, tmp_path / "x.pt", **_CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.select == "model"
    assert_same(checkpoint, dict(model.state_dict()))
    assert ("model", "torch.nn.modules.container.Sequential") in [(at, str(value)) for at, value in checkpoint.opaque]


@container
def test_reads_every_published_layout_of_keys_from_python_2(kind: str, tmp_path: Path) -> None:
    torch.save(
        {b"conv.weight": torch.ones(2), "naïve".encode(): torch.zeros(1)}, tmp_path / "x.pth", **_CONTAINERS[kind]
    )
    assert list(open_checkpoint(tmp_path / "x.pth").tensors) == ["conv.weight", "naïve"]


@container
@pytest.mark.parametrize("sparse", ["coo", "csr", "quantised", "nested", "meta"])
def test_leaves_rare_tensors_as_records(kind: str, sparse: str, tmp_path: Path) -> None:
    rare = {
        "coo": lambda: torch.eye(3).to_sparse(),
        "csr": lambda: torch.eye(3).to_sparse_csr(),
        "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "meta": lambda: torch.ones(3, device="meta"),
    }[sparse]()
    torch.save({"plain": torch.ones(2), "rare": rare}, tmp_path / "x.pth", **_CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert_same(checkpoint, {"plain": torch.ones(2)})
    assert checkpoint.ignored == ("rare",)


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**100), 2**100),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
)
_values: Any = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner, inner, inner),
        st.tuples(inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=30,
)


def _plain(node: Any) -> Any:
    """The Python value that an inert value stands for."""
    if hasattr(node, "items") and not isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items}
    return type(node)(map(_plain, node)) if isinstance(node, list | tuple) else node


@settings(max_examples=80, deadline=None)
@given(value=_values, protocol=st.integers(2, 5), kind=st.sampled_from(sorted(_CONTAINERS)))
def test_values_are_what_was_saved(value: Any, protocol: int, kind: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("v") / "x.pth"
    torch.save(value, path, pickle_protocol=protocol, **_CONTAINERS[kind])
    assert _plain(open_contents(path).root) == value


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.text("abcé.", min_size=1, max_size=8), min_size=1, max_size=5, unique=True),
    shape=st.lists(st.integers(0, 4), max_size=4),
    data=st.data(),
    kind=st.sampled_from(sorted(_CONTAINERS)),
)
def test_views_are_what_was_saved(
    keys: list[str], shape: list[int], data: Any, kind: str, tmp_path_factory: Any
) -> None:
    base = torch.randn(shape)
    tensors = {}
    for key in keys:
        order = data.draw(st.permutations(range(base.dim())))
        cut = [slice(data.draw(st.integers(0, 3)), None, data.draw(st.integers(1, 3))) for _ in order]
        tensors[key] = base[tuple(cut)].permute(order)
    path = tmp_path_factory.mktemp("t") / "x.pth"
    torch.save(tensors, path, **_CONTAINERS[kind])
    assert_same(open_checkpoint(path), tensors)


# Damage


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
    torch.save({"w": torch.arange(8.0), "v": torch.zeros(3)}, tmp_path / "x.pth", **_CONTAINERS[kind])
    whole = (tmp_path / "x.pth").read_bytes()
    for length in range(0, len(whole) - 1, 3):
        with pytest.raises(RefusedContent) as caught:
            open_checkpoint(write(tmp_path / "y.pth", whole[:length]))
        if length > 32 or length == 0:
            assert isinstance(caught.value, TruncatedFile), length


@container
def test_any_flipped_byte_is_read_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    torch.save({"epoch": 1, "model": model, "w": {"x": torch.zeros(2)}}, tmp_path / "x.pth", **_CONTAINERS[kind])
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
    assert list(_refusals(write(tmp_path / "z.pth", bytes(broken)))) == ["CorruptTensor"]


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


# Zip archives that two readers understand differently


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
        ({"a.npy": b""}, "is a NumPy archive, not a torch checkpoint"),
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


# The legacy container


def _legacy(path: Path, tensors: dict[str, torch.Tensor]) -> tuple[bytes, int]:
    """A legacy file and the offset of the list of keys."""
    torch.save(tensors, path, **_LEGACY)
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
