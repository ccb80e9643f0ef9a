"""Tensors that a pickle describes and no file can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats import open_checkpoint, open_contents

from .making import (
    integer,
    integers,
    mapping,
    name,
    pickle_of,
    storage,
    tensor,
    text,
    write,
    zip_bytes,
)


def _archive(path: Path, body: bytes, **records: bytes) -> Path:
    return write(path, zip_bytes(pickle_of(body), {"data/0": bytes(16)} | {f"data/{k}": v for k, v in records.items()}))


_BAD_TENSORS = {
    "negative offset": (tensor(offset=-1), MalformedFile, "negative or non-integer offset"),
    "huge offset": (tensor(offset=2**64), MalformedFile, "negative or non-integer offset"),
    "offset beyond": (tensor(offset=1), MalformedFile, r"F32 \[4\] ends at element 5 of a storage of 4"),
    "negative extent": (tensor(size=integers(-4)), MalformedFile, "not a list of integers"),
    "extent true": (tensor(size=b"\x88\x85"), MalformedFile, "not a list of integers"),
    "extent a float": (tensor(size=b"G" + bytes(8) + b"\x85"), MalformedFile, "not a list of integers"),
    "size a number": (tensor(size=integer(4)), MalformedFile, "not a list of integers"),
    "size beyond": (tensor(size=integers(5)), MalformedFile, "ends at element 5"),
    "size overflows": (tensor(size=integers(2**40, 2**40), stride=integers(0, 0)), LimitExceeded, "more elements"),
    "size overflows, empty": (
        tensor(size=integers(0, 2**62, 2**62), stride=integers(1, 1, 1)),
        LimitExceeded,
        "more elements",
    ),
    "negative stride": (tensor(stride=integers(-1)), MalformedFile, "negative or non-integer stride"),
    "huge stride": (tensor(stride=integers(2**63)), MalformedFile, "negative or non-integer stride"),
    "stride beyond": (tensor(stride=integers(2)), MalformedFile, "ends at element 7"),
    "stride missing": (tensor(stride=b")"), MalformedFile, "stride for some axes only"),
    "rank 65": (tensor(size=integers(*[1] * 65), stride=integers(*[1] * 65)), LimitExceeded, "65 axes"),
    "no storage": (tensor(of=integer(3)), MalformedFile, "something other than a storage"),
    "too few": (name("torch._utils", "_rebuild_tensor_v2") + b")R", MalformedFile, "something other than a storage"),
    "storage of a number": (tensor(of=integer(3) + b"Q"), MalformedFile, "persistent id is not a tuple"),
    "storage of a kind": (tensor(of=storage(kind="DiskStorage")), MalformedFile, "unknown class torch.DiskStorage"),
    "storage negative": (tensor(of=storage(numel=-1)), MalformedFile, "no possible number of elements"),
    "storage overflows": (tensor(of=storage(numel=2**62)), MalformedFile, "no possible number of elements"),
    "storage too long": (tensor(of=storage(numel=5)), MalformedFile, "takes 20 bytes, its entry in the archive has 16"),
    "storage lacks": (tensor(of=storage(key="9")), MalformedFile, "uses storage '9', the archive lacks it"),
    "storage climbs": (tensor(of=storage(key="../data.pkl")), MalformedFile, "the archive lacks it"),
    "id of another kind": (b"(" + text("tensor") + text("0") + b"tQ", MalformedFile, "does not name a storage"),
    "id as text": (b"P0\n", MalformedFile, "persistent id is not a tuple"),
}


@pytest.mark.parametrize("case", _BAD_TENSORS)
def test_refuses_impossible_tensors(case: str, tmp_path: Path) -> None:
    body, error, message = _BAD_TENSORS[case]
    with pytest.raises(error, match=message) as caught:
        open_contents(_archive(tmp_path / "x.pth", mapping(w=body)))
    assert "\n" not in str(caught.value)


def test_refuses_one_storage_with_two_dtypes(tmp_path: Path) -> None:
    half = tensor(of=storage(kind="HalfStorage", numel=8), size=integers(8))
    with pytest.raises(MalformedFile, match="used as FloatStorage of 4 and as HalfStorage of 8"):
        open_contents(_archive(tmp_path / "x.pth", mapping(a=tensor(), b=half)))


def test_an_unknown_dtype_stays_a_record(tmp_path: Path) -> None:
    args = storage(kind="UntypedStorage", numel=16) + integer(0) + integers(4) + integers(1) + b"\x89N"
    body = name("torch._utils", "_rebuild_tensor_v3") + b"(" + args + name("torch", "complex32") + b"tR"
    checkpoint = open_checkpoint(
        _archive(tmp_path / "x.pth", mapping(a=tensor(of=storage("1")), b=body), **{"1": bytes(16)})
    )
    assert list(checkpoint.tensors) == ["a"]
    assert checkpoint.ignored == ("b",)
