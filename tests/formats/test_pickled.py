"""Plain pickles: tensors of torch and arrays of numpy that lie inside the pickle itself."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ckptfix.errors import CorruptTensor, LimitExceeded, MalformedFile, NoTensors, TruncatedFile, UnknownFormat
from ckptfix.formats import Reader, TensorRef, open_checkpoint
from ckptfix.formats.pickle import limits

from .arrays import arrays_of_every_kind, assert_same_arrays
from .making import CONTAINERS, assert_same, bytes_of, mapping, name, tensor, text, write, zip_bytes

protocols = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


@protocols
def test_reads_arrays_as_numpy_does(protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x.pkl", pickle.dumps(arrays_of_every_kind(), protocol))
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "pickle"
    assert_same_arrays(checkpoint, pickle.loads(path.read_bytes()))
    assert [str(value) for _, value in checkpoint.opaque] == ["numpy.matrix"]


@pytest.mark.parametrize("protocol", [0, 1])
def test_reads_the_first_protocols(protocol: int, tmp_path: Path) -> None:
    arrays = {"w": np.arange(600.0).reshape(20, 30), "b": np.array([-1, 200], ">i4"), "n": np.float32(2)}
    for value in (arrays, OrderedDict(arrays)):
        path = write(tmp_path / "x.pkl", pickle.dumps(value, protocol))
        assert open_checkpoint(path).format == "pickle"
        assert_same_arrays(open_checkpoint(path), arrays)
    tensors = {"w": torch.randn(30, 40), "b": torch.ones(2, dtype=torch.bfloat16)}
    assert_same(open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps(tensors, protocol))), tensors)
    long = pickle.dumps({"w": np.full(300_000, 7.5)}, 0)
    with pytest.raises(LimitExceeded, match="a line of more than"):
        open_checkpoint(write(tmp_path / "x.pkl", long))


def _tensors() -> dict[str, torch.Tensor]:
    dtypes = [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64]
    dtypes += [torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
    dtypes += [torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]
    raw = torch.randint(0, 256, (16 * 3000,), dtype=torch.uint8)
    found = {str(dtype): raw[:96].clone().view(dtype).reshape(2, -1) for dtype in dtypes if dtype != torch.bool}
    found |= {f"{dtype} long": raw.view(dtype).reshape(3, -1) for dtype in dtypes if dtype != torch.bool}
    return found | {
        "bool": raw[:50] > 100,
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0),
        "transposed": torch.arange(12.0).reshape(3, 4).t(),
        "narrow": torch.arange(20_000.0)[5:9],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "conjugate": torch.tensor([1 + 2j]).conj(),
    }


@protocols
def test_reads_tensors_as_torch_does(protocol: int, tmp_path: Path) -> None:
    tensors = _tensors()
    checkpoint = open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps(OrderedDict(tensors), protocol)))
    assert_same(checkpoint, tensors)
    assert checkpoint.opaque == ()
    # torch cannot load the dtypes that have no storage class of their own.
    typed = {
        key: tensor for key, tensor in tensors.items() if tensor.dtype in torch.storage._dtype_to_storage_type_map()
    }
    path = write(tmp_path / "y.pkl", pickle.dumps(typed, protocol))
    assert_same(open_checkpoint(path), pickle.loads(path.read_bytes()))


@protocols
def test_reads_a_pickled_module(protocol: int, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 9), torch.nn.BatchNorm2d(40))
    path = write(tmp_path / "x.pkl", pickle.dumps({"net": model}, protocol))
    assert_same(open_checkpoint(path), dict(model.state_dict()))


@protocols
def test_a_tensor_under_two_keys_is_one(protocol: int, tmp_path: Path) -> None:
    for weight in (np.ones(4), np.ones(9000), torch.ones(4), torch.ones(9000)):
        value = {"a": weight, "b": weight, "like": weight + 0}
        checkpoint = open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps(value, protocol)))
        assert checkpoint.aliases == (("a", "b"),)


def _string(value: bytes) -> bytes:
    """A string of Python 2, of which protocol 2 wrote the bytes."""
    return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value


def _python2_array(array: NDArray[Any]) -> bytes:
    """`ndarray.__reduce__` as cPickle of Python 2 wrote it."""
    begun = name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85" + _string(b"b")
    dtype = name("numpy", "dtype") + _string(array.dtype.str[1:].encode()) + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + _string(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(b"J" + struct.pack("<i", extent) for extent in array.shape) + b"t"
    return begun + b"\x87R(K\x01" + shape + dtype + b"\x89" + _string(array.tobytes()) + b"tb"


def test_reads_the_pickles_of_python_2(tmp_path: Path) -> None:
    arrays = {"conv1_w": np.arange(12.0, dtype="f4").reshape(3, 4), "fc_w": np.arange(9000.0).reshape(90, 100)}
    body = b"}(" + b"".join(_string(key.encode()) + _python2_array(value) for key, value in arrays.items()) + b"u"
    whole = b"\x80\x02}(" + _string(b"blobs") + body + _string(b"cfg") + _string(b"x" * 300) + b"u."
    loaded = pickle.loads(whole, encoding="bytes")
    assert np.array_equal(loaded[b"blobs"][b"fc_w"], arrays["fc_w"])
    checkpoint = open_checkpoint(write(tmp_path / "x.pkl", whole))
    assert checkpoint.select == "blobs"
    assert_same_arrays(checkpoint, arrays)


@protocols
def test_reads_what_detectron2_publishes(protocol: int, tmp_path: Path) -> None:
    model = {"backbone.conv.weight": np.ones((64, 3, 7, 7), "f4"), "backbone.bn.num_batches_tracked": np.int64(0)}
    value = {"model": model, "__author__": "someone", "matching_heuristics": True}
    checkpoint = open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps(value, protocol)))
    assert checkpoint.select == "model"
    assert_same_arrays(checkpoint, model)


@pytest.mark.parametrize("kind", CONTAINERS)
@protocols
def test_reads_the_arrays_that_torch_saved(kind: str, protocol: int, tmp_path: Path) -> None:
    arrays = arrays_of_every_kind()
    torch.save({"model": arrays}, tmp_path / "x.pth", pickle_protocol=protocol, **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert checkpoint.format == kind
    assert_same_arrays(checkpoint, arrays)
    # Beside tensors of torch an array is a statistic or the state of a random generator, not a weight.
    torch.save({"w": torch.ones(1), "mean": np.ones(3)}, tmp_path / "y.pth", **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "y.pth")
    assert_same(checkpoint, {"w": torch.ones(1)})
    assert checkpoint.ignored == ("mean",)


def test_opens_arrays_that_torch_saved_without_reading_them(tmp_path: Path) -> None:
    torch.save({f"w{index}": np.ones(3 << 20) for index in range(4)}, tmp_path / "x.pth", pickle_protocol=4)
    assert (tmp_path / "x.pth").stat().st_size > limits.PICKLE_NBYTES
    tracemalloc.start()
    assert len(open_checkpoint(tmp_path / "x.pth").tensors) == 4
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_many_tensors_of_a_plain_pickle_are_within_the_limits(tmp_path: Path) -> None:
    for count, make in ((8_000, torch.zeros), (20_000, np.zeros)):
        value = {f"layers.{index}.experts.weight": make(1100) for index in range(count)}
        path = write(tmp_path / "x.pkl", pickle.dumps(value, 4))
        del value
        assert len(open_checkpoint(path).tensors) == count


@protocols
def test_reads_the_arrays_of_a_deflated_archive(protocol: int, tmp_path: Path) -> None:
    arrays = arrays_of_every_kind()
    whole = zip_bytes(pickle.dumps(arrays, protocol), compression=zipfile.ZIP_DEFLATED)
    checkpoint = open_checkpoint(write(tmp_path / "x.pth", whole))
    assert_same_arrays(checkpoint, arrays)


def test_leaves_other_arrays_as_records(tmp_path: Path) -> None:
    others = {
        "text": np.array(["a", "b"]),
        "bytes": np.array([b"a"]),
        "date": np.array(["2020-01-01"], "M8[D]"),
        "record": np.zeros(2, [("a", "f4"), ("b", "i4")]),
        "long": np.zeros(2, np.longdouble),
        "void": np.zeros(2, "V1"),
    }
    for protocol in (2, 5):
        path = write(tmp_path / "x.pkl", pickle.dumps({"w": np.ones(2), **others}, protocol))
        checkpoint = open_checkpoint(path)
        assert_same_arrays(checkpoint, {"w": np.ones(2)})
        assert checkpoint.ignored == tuple(others)


def test_looks_into_arrays_of_objects(tmp_path: Path) -> None:
    inner = {"w": np.ones(3), "b": np.zeros(2)}
    for whole in (np.array(inner, dtype=object), np.array([inner, None], dtype=object)):
        checkpoint = open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps({"all": whole}, 4)))
        assert_same_arrays(checkpoint, inner)
        assert checkpoint.select == ("all" if whole.shape == () else "all.0")


def test_reads_bfloat16_of_ml_dtypes(tmp_path: Path) -> None:
    # What pickling such an array writes, but for the memo: numpy has no bfloat16 of its own.
    values = torch.tensor([1.5, -2.0, float("nan")], dtype=torch.bfloat16)
    plain = pickle.dumps({"w": values.view(torch.int16).numpy()}, 2)
    assert plain.count(b"X\x02\x00\x00\x00i2q\x0e") == 1
    named = plain.replace(b"X\x02\x00\x00\x00i2q\x0e", b"cml_dtypes\nbfloat16\nq\x0e")
    checkpoint = open_checkpoint(write(tmp_path / "x.pkl", named))
    assert_same(checkpoint, {"w": values})
    assert [str(value) for _, value in checkpoint.opaque] == ["ml_dtypes.bfloat16"]


def test_opens_without_reading_the_weights(tmp_path: Path) -> None:
    value = {f"w{index}": np.ones(1 << 20, "f4") for index in range(8)} | {"t": torch.ones(1 << 20)}
    path = write(tmp_path / "x.pkl", pickle.dumps(value, 4))
    write(tmp_path / "y.pkl", pickle.dumps(value, 2))
    del value
    for name_ in ("x.pkl", "y.pkl"):
        tracemalloc.start()
        checkpoint = open_checkpoint(tmp_path / name_)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 << 20, name_
    assert path.stat().st_size > 36 << 20
    assert isinstance(checkpoint.tensors["t"], TensorRef)


def test_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Attack:
        def __reduce__(self) -> object:
            return os.system, ("touch pwned-by-pickle",)

    class InBytes:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def __reduce__(self) -> object:
            return torch.storage._load_from_bytes, (self.data,)

    torch.save(Attack(), tmp_path / "evil.pth", _use_new_zipfile_serialization=False)
    nested = InBytes((tmp_path / "evil.pth").read_bytes())
    zipped = InBytes(b"PK\3\4" + bytes(40_000))
    for protocol in (2, 5):
        whole = pickle.dumps({"w": np.ones(2), "x": Attack(), "y": nested, "z": [zipped]}, protocol)
        checkpoint = open_checkpoint(write(tmp_path / "x.pkl", whole))
        assert_same_arrays(checkpoint, {"w": np.ones(2)})
        assert [(at, str(value)) for at, value in checkpoint.opaque] == [
            ("x", "posix.system"),
            ("y", "torch.storage._load_from_bytes"),
            ("z[0]", "torch.storage._load_from_bytes"),
        ]
    assert not (tmp_path / "pwned-by-pickle").exists()


def _array_of(find: bytes, replacement: bytes, size: int = 4, protocol: int = 4) -> bytes:
    whole = pickle.dumps({"w": np.arange(size, dtype="f4")}, protocol)
    assert whole.count(find) == 1
    return whole.replace(find, replacement)


_BROKEN = {
    "shape too long": (_array_of(b"K\x04\x85", b"K\x05\x85"), MalformedFile, "of 20 bytes is made of 16"),
    "long shape too long": (
        _array_of(b"M\x88\x13\x85", b"M\x89\x13\x85", 5000),
        MalformedFile,
        "of 20004 bytes is made of 20000",
    ),
    "shape negative": (_array_of(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), MalformedFile, "not a list of integers"),
    "shape enormous": (_array_of(b"K\x04\x85", b"J\0\0\0\x40" * 3 + b"\x87"), LimitExceeded, "more elements"),
    "trailing": (pickle.dumps({"w": np.ones(2)}) + b"more", MalformedFile, "4 bytes after its pickle"),
    "part of an archive": (b"\x80\x02" + mapping(w=tensor()) + b".", MalformedFile, "storages that are not in it"),
    "cut": (pickle.dumps({"w": np.ones(2)})[:-9], TruncatedFile, "before its STOP"),
    "cut in an array": (pickle.dumps(np.ones(9000), 4)[:9000], TruncatedFile, "before its STOP"),
    "text of a storage": (
        b"\x80\x02" + name("torch.storage", "_load_from_bytes") + text("x") + b"\x85R.",
        NoTensors,
        "holds no tensor",
    ),
    "nothing": (pickle.dumps(["just", {"plain": "values"}]), NoTensors, "holds no tensor"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_refuses_what_contradicts_itself(case: str, tmp_path: Path) -> None:
    data, error, message = _BROKEN[case]
    with pytest.raises(error, match=message):
        open_checkpoint(write(tmp_path / "x.pkl", data))


def test_bytes_as_text_are_counted_when_they_are_read(tmp_path: Path) -> None:
    array = np.full(5000, 200, "u1").repeat(4)
    whole = pickle.dumps({"w": array}, 2)
    path = write(tmp_path / "x.pkl", whole)
    storage = open_checkpoint(path).tensors["w"].storage
    assert (storage.encoding, storage.nbytes, storage.stored_nbytes) == ("utf-8", 20_000, 40_000)
    for broken in (b"ab", "ā".encode(), b"\xff\xff"):  # two characters, one that is no byte, no character at all
        data = whole[: storage.offset] + broken + whole[storage.offset + 2 :]
        checkpoint = open_checkpoint(write(path, data))
        with Reader() as reader, pytest.raises(CorruptTensor, match="written as text"):
            reader.read(checkpoint.tensors["w"])


def test_a_part_of_a_long_storage_in_text_is_found(tmp_path: Path) -> None:
    base = torch.arange(20_000.0)
    checkpoint = open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps({"w": base[7000:7003]}, 2)))
    assert checkpoint.tensors["w"].storage.encoding == "utf-8"
    with Reader() as reader:
        assert reader.read(checkpoint.tensors["w"]) == bytes_of(base[7000:7003])


def test_a_safetensors_header_may_begin_like_a_pickle(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for count in range(1, 200):
        save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"pad": "x" * count * 8})
        head = (tmp_path / "x.safetensors").read_bytes()[:2]
        assert open_checkpoint(tmp_path / "x.safetensors").format == "safetensors"
        if head == b"\x80\x02":
            return
    pytest.fail("no header of 640 bytes was made")


@pytest.mark.parametrize(("compress", "expected"), [(0, "a file of joblib"), (3, "zlib"), (("zlib", 9), "zlib")])
def test_names_the_files_of_joblib(compress: object, expected: str, tmp_path: Path) -> None:
    joblib.dump({"w": np.arange(12.0), "b": np.ones(3)}, tmp_path / "x.pkl", compress=compress)
    with pytest.raises(UnknownFormat, match=expected):
        open_checkpoint(tmp_path / "x.pkl")


def test_a_class_of_protocol_0_begins_a_pickle(tmp_path: Path) -> None:
    value = OrderedDict(w=np.arange(3.0))
    for protocol in (0, 1):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
        assert list(open_checkpoint(tmp_path / "x.pkl").tensors) == ["w"]
