"""`.npz` and `.npy` as numpy writes them, and as it never would."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptfix.errors import CkptfixError, CorruptTensor, LimitExceeded, MalformedFile, NoTensors, UnknownFormat
from ckptfix.formats import Reader, open_checkpoint, open_contents

from .arrays import arrays_of_every_kind, assert_same_arrays
from .making import assert_same, write

_WRITERS: dict[str, Callable[..., None]] = {"stored": np.savez, "deflated": np.savez_compressed}
writers = pytest.mark.parametrize("writer", _WRITERS)


def _plain_arrays() -> dict[str, Any]:
    return {key: value for key, value in arrays_of_every_kind().items() if key != "matrix"}


@writers
def test_reads_what_numpy_reads(writer: str, tmp_path: Path) -> None:
    _WRITERS[writer](tmp_path / "x.npz", **_plain_arrays())
    checkpoint = open_checkpoint(tmp_path / "x.npz")
    assert checkpoint.format == "npz"
    with np.load(tmp_path / "x.npz") as loaded:
        assert_same_arrays(checkpoint, dict(loaded))
    assert checkpoint.opaque == ()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_reads_every_version_of_the_header(version: tuple[int, int], tmp_path: Path) -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version)
    assert buffer.getvalue()[6:8] == bytes(version)
    assert_same_arrays(open_checkpoint(_pack(tmp_path / "x.npz", w=buffer.getvalue())), {"w": array})


def test_reads_the_integers_of_python_2(tmp_path: Path) -> None:
    member = _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }", np.arange(6, dtype="f4").tobytes())
    checkpoint = open_checkpoint(_pack(tmp_path / "x.npz", w=member))
    with np.load(tmp_path / "x.npz") as loaded, pytest.warns(UserWarning, match="Python 2"):
        assert_same_arrays(checkpoint, {"w": loaded["w"]})


def _npy(header: str | bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(raw)) + raw + data


def _pack(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_keys_are_the_names_of_the_members(tmp_path: Path) -> None:
    arrays = {"layers/0/kernel": np.ones(2), "encoder.bias": np.zeros(3)}
    np.savez(tmp_path / "x.npz", **arrays)
    assert_same_arrays(open_checkpoint(tmp_path / "x.npz"), arrays)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("config.json", b"{}")
    checkpoint = open_checkpoint(tmp_path / "x.npz")
    assert_same_arrays(checkpoint, arrays)
    assert checkpoint.ignored == ("config.json",)


def test_reads_bfloat16_as_ml_dtypes_leaves_it(tmp_path: Path) -> None:
    values = torch.tensor([[1.5, -2.0], [float("nan"), 3.0]], dtype=torch.bfloat16)
    data = values.view(torch.int16).numpy().tobytes()
    for descr in ("<V2", "|V2"):
        member = _npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 2), }}", data)
        assert_same(open_checkpoint(_pack(tmp_path / "x.npz", w=member)), {"w": values})


def test_says_what_it_cannot_read(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        w=np.ones(2),
        record=np.zeros(2, [("a", "f4"), ("b", "i4")]),
        long=np.zeros(2, np.longdouble),
        void=np.zeros(2, "V1"),
        date=np.array(["2020-01-01"], "M8[D]"),
        text=np.array(["a", "b"]),
    )
    contents = open_contents(tmp_path / "x.npz")
    assert [note.partition(" ")[0] for note in contents.notes] == ["record.npy", "long.npy", "void.npy", "date.npy"]
    assert contents.notes[2] == "void.npy holds elements of the dtype |V1, which no tensor has"
    checkpoint = open_checkpoint(tmp_path / "x.npz")
    assert_same_arrays(checkpoint, {"w": np.ones(2)})
    assert checkpoint.ignored == ("record", "long", "void", "date", "text")


class _Attack:
    def __reduce__(self) -> object:
        return os.system, ("touch pwned-by-pickle",)


@writers
def test_objects_are_never_unpickled(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner = {"conv.weight": np.arange(30_000.0), "conv.bias": np.ones(3, ">f4")}
    params, evil = np.array(inner, dtype=object), np.array([_Attack()], dtype=object)
    _WRITERS[writer](tmp_path / "x.npz", params=params, evil=evil)
    checkpoint = open_checkpoint(tmp_path / "x.npz")
    assert checkpoint.select == "params"
    assert_same_arrays(checkpoint, inner)
    assert [(at, str(value)) for at, value in checkpoint.opaque] == [("evil[0]", "posix.system")]
    assert not (tmp_path / "pwned-by-pickle").exists()
    _WRITERS[writer](tmp_path / "y.npz", evil=evil)
    with pytest.raises(NoTensors):
        open_checkpoint(tmp_path / "y.npz")


def test_reads_the_dict_that_numpy_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"conv1": {"weights": np.ones((3, 3, 3, 64), "f4"), "biases": np.zeros(64, "f4")}}
    np.save(tmp_path / "vgg.npy", weights)  # type: ignore[arg-type]  # it makes an array of one object
    checkpoint = open_checkpoint(tmp_path / "vgg.npy")
    assert checkpoint.format == "npy"
    assert_same_arrays(checkpoint, weights["conv1"])
    np.save(tmp_path / "evil.npy", np.array(_Attack(), dtype=object))
    assert [str(value) for _, value in open_contents(tmp_path / "evil.npy").opaque] == ["posix.system"]
    assert not (tmp_path / "pwned-by-pickle").exists()
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UnknownFormat, match="one array of numpy, without a key"):
        open_contents(tmp_path / "one.npy")


def test_tied_members_are_two_tensors(tmp_path: Path) -> None:
    same = np.ones(9)
    np.savez_compressed(tmp_path / "x.npz", a=same, b=same)
    assert open_checkpoint(tmp_path / "x.npz").aliases == ()


def test_a_damaged_header_hides_no_tensor(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.arange(4, dtype="i4"), t=np.array(["text"]))
    data = (tmp_path / "x.npz").read_bytes().replace(b"'<i4'", b"'<M4'")
    with pytest.raises(MalformedFile, match=r"w\.npy has CRC-32"):
        open_contents(write(tmp_path / "y.npz", data))


@writers
def test_finds_every_flipped_bit_of_the_elements(writer: str, tmp_path: Path) -> None:
    _WRITERS[writer](
        tmp_path / "x.npz", w=np.arange(40, dtype="i2").reshape(5, 8), v=np.asfortranarray(np.ones((3, 4)))
    )
    whole = (tmp_path / "x.npz").read_bytes()
    checkpoint = open_checkpoint(tmp_path / "x.npz")
    with Reader() as reader:
        before = {key: reader.read(ref) for key, ref in checkpoint.tensors.items()}
    for key, ref in checkpoint.tensors.items():
        storage = ref.storage
        # Of a deflated member the header is part of what is checked.
        first = storage.offset + (storage.skip if storage.encoding == "raw" else 0)
        for byte in range(first, storage.offset + storage.stored_nbytes):
            broken = bytearray(whole)
            broken[byte] ^= 1 << byte % 8
            path = write(tmp_path / "y.npz", bytes(broken))
            try:
                with Reader() as reader:
                    found = reader.read(open_checkpoint(path).tensors[key])
            except CkptfixError as error:
                assert error.exit_code == 3
            else:
                # A deflate stream may end with bits that mean nothing.
                assert (byte, writer) == (storage.offset + storage.stored_nbytes - 1, "deflated")
                assert found == before[key]


def test_finds_a_flipped_bit_in_a_header(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.arange(4, dtype="i4"))
    data = (tmp_path / "x.npz").read_bytes().replace(b"'<i4'", b"'<u4'")
    checkpoint = open_checkpoint(write(tmp_path / "y.npz", data))
    with Reader() as reader, pytest.raises(CorruptTensor, match="CRC-32"):
        reader.read(checkpoint.tensors["w"])


_SOUND = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"
_BROKEN = {
    "no array": (b"weights", MalformedFile, "w.npy: is named like an array of numpy"),
    "empty": (b"", MalformedFile, "is named like an array"),
    "newer": (_npy(_SOUND, bytes(16), b"\4\0"), MalformedFile, "unknown version 04.00"),
    "cut header": (_npy(_SOUND)[:-3], CkptfixError, "ends inside the header"),
    "long header": (_npy(_SOUND + " " * 20_000, bytes(16)), LimitExceeded, "10000 are allowed"),
    "longer header": (_npy(_SOUND, bytes(16), b"\2\0").replace(b"9\0\0\0", b"\0\0\0\x7f", 1), LimitExceeded, "allowed"),
    "no literal": (_npy("{'descr': open('x')}"), MalformedFile, "no Python literal"),
    "nested": (_npy("(" * 9000), MalformedFile, "no Python literal"),
    "negated": (_npy("-" * 9000 + "1"), MalformedFile, "no Python literal"),
    "nul": (_npy(b"\0"), MalformedFile, "no Python literal"),
    "escape": (_npy("{'\\d': 1}"), MalformedFile, "no Python literal"),
    "a field too many": (_npy(_SOUND[:-1] + "'x': 1}"), MalformedFile, "without exactly"),
    "unhashable": (_npy("{[]: 1}"), MalformedFile, "no Python literal"),
    "order": (_npy(_SOUND.replace("False", "3"), bytes(16)), MalformedFile, "neither True nor False"),
    "extent": (_npy(_SOUND.replace("4,", "-4,"), bytes(16)), MalformedFile, "not a list of integers"),
    "extent true": (_npy(_SOUND.replace("4,", "True,"), bytes(16)), MalformedFile, "not a list of integers"),
    "shape": (_npy(_SOUND.replace("(4,)", "4"), bytes(16)), MalformedFile, "not a list of integers"),
    "rank": (_npy(_SOUND.replace("4,", "1," * 65), bytes(4)), LimitExceeded, "65 axes"),
    "overflow": (_npy(_SOUND.replace("4,", f"{1 << 40}, {1 << 40}"), bytes(16)), LimitExceeded, "more elements"),
    "short": (_npy(_SOUND, bytes(15)), MalformedFile, "takes 16 bytes, the member has 15"),
    "long": (_npy(_SOUND, bytes(17)), MalformedFile, "takes 16 bytes, the member has 17"),
    "no pickle": (
        _npy(_SOUND.replace("<f4", "|O"), bytes(17)),
        MalformedFile,
        "w.npy: the pickle has an unknown opcode",
    ),
    "trailing": (_npy(_SOUND.replace("<f4", "|O"), pickle.dumps([1]) + b"x"), MalformedFile, "after its pickle"),
    "outside": (_npy(_SOUND.replace("<f4", "|O"), b"\x80\x02K\0Q."), MalformedFile, "not in it"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_refuses_what_contradicts_itself(case: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    member, error, message = _BROKEN[case]
    with pytest.raises(error, match=message) as caught:
        open_contents(_pack(tmp_path / "x.npz", w=member))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert not recwarn.list


def test_a_deflated_member_may_be_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", _npy(_SOUND, bytes(200 << 20)))
    with pytest.raises(MalformedFile, match="the member has 209715200"):
        open_contents(tmp_path / "x.npz")
