"""safetensors: what the library writes is read to the bit; what breaks the format is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ckptfix.errors import LimitExceeded, MalformedFile, TruncatedFile
from ckptfix.formats import open_checkpoint, open_contents
from ckptfix.formats.safetensors import MAX_HEADER

from .making import assert_same, safetensors_bytes, write

_DTYPES = [
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
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def _entry(shape: list[object], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {f"w{index}": torch.randint(0, 2, (2, 3)).to(dtype) for index, dtype in enumerate(_DTYPES)}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), "nan": torch.tensor([float("nan"), -0.0])}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt", "ключ": "значение"})
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert_same(checkpoint, {key: tensors[key] for key in checkpoint.tensors})
    assert set(checkpoint.tensors) == set(tensors)
    assert checkpoint.format == "safetensors"
    assert checkpoint.metadata == {"format": "pt", "ключ": "значение"}
    assert checkpoint.select == ""


_shapes = st.lists(st.integers(0, 4), max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    specs=st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda key: key != "__metadata__"),
        st.tuples(_shapes, st.sampled_from(_DTYPES)),
        min_size=1,
        max_size=6,
    )
)
def test_written_then_read_is_the_same(specs: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    tensors = {key: torch.randint(0, 100, tuple(shape)).to(dtype) for key, (shape, dtype) in specs.items()}
    path = tmp_path_factory.mktemp("st") / "x.safetensors"
    save_file(tensors, path)
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint, {key: tensors[key] for key in checkpoint.tensors})
    assert set(checkpoint.tensors) == set(tensors)


_F32 = _entry([1], 0, 4)
_EMPTY = json.dumps(_entry([0], 0, 0))

_MALFORMED = {
    "not an object": (b"[1, 2]", b"", "does not begin"),
    "not json": (b"{not json}", b"", "is not JSON"),
    "not utf-8": (b'{"\xff": 1}', b"", "is not JSON"),
    "nested too deep": (b'{"a":' + b"[" * 200_000 + b"}", b"", "is not JSON"),
    "not a number": (b'{"a": NaN}', b"", "is not JSON"),
    "number without end": (b'{"a": ' + b"9" * 5000 + b"}", b"", "is not JSON"),
    "padded with newlines": (json.dumps({"a": _F32}).encode() + b"\n", bytes(4), "padded"),
    "key twice, first no entry": (f'{{"a":5,"a":{json.dumps(_F32)}}}'.encode(), bytes(4), "key 'a' twice"),
    "key twice": (f'{{"a":{_EMPTY},"a":{_EMPTY}}}'.encode(), b"", "key 'a' twice"),
    "key twice, once escaped": (f'{{"a":{_EMPTY},"\\u0061":{_EMPTY}}}'.encode(), b"", "key 'a' twice"),
    "fields twice": (f'{{"a":{_EMPTY[:-1]},{_EMPTY[1:]}}}'.encode(), b"", "key 'dtype' twice"),
    "metadata twice": (f'{{"__metadata__":{{}},"a":{_EMPTY},"__metadata__":{{}}}}'.encode(), b"", "_' twice"),
    "extent -0": (b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b"", "-0 is not a whole number"),
    "metadata not utf-8": (b'{"__metadata__":{"a":"\xff"}}', b"", "is not JSON"),
    "metadata key twice": (b'{"__metadata__": {"a": "1", "a": "2"}}', b"", "key 'a' twice"),
    "field twice": (b'{"w": {"dtype": "F32", "dtype": "F16"}}', b"", "key 'dtype' twice"),
    "lone surrogate": (b'{"\\ud800": {}}', b"", "not Unicode"),
    "metadata not text": ({"__metadata__": {"a": 1}}, b"", "must map text to text"),
    "metadata a list": ({"__metadata__": []}, b"", "must map text to text"),
    "entry not an object": ({"w": 3}, b"", "exactly dtype, shape and data_offsets"),
    "entry lacks shape": ({"w": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4), "exactly dtype"),
    "entry has more": ({"w": {**_F32, "strides": [1]}}, bytes(4), "exactly dtype"),
    "unknown dtype": ({"w": _entry([1], 0, 4, "F33")}, bytes(4), "unknown dtype 'F33'"),
    "torch's dtype": ({"w": _entry([1], 0, 16, "C128")}, bytes(16), "unknown dtype"),
    "dtype a list": ({"w": {**_F32, "dtype": ["F32"]}}, bytes(4), "unknown dtype"),
    "negative extent": ({"w": _entry([-1], 0, 4)}, bytes(4), "not a list of integers"),
    "extent true": ({"w": _entry([True], 0, 4)}, bytes(4), "not a list of integers"),
    "extent 1.0": ({"w": _entry([1.0], 0, 4)}, bytes(4), "not a list of integers"),
    "shape text": ({"w": {**_F32, "shape": "1"}}, bytes(4), "not a list of integers"),
    "offsets backwards": ({"w": _entry([1], 4, 0)}, bytes(4), "run backwards"),
    "offsets negative": ({"w": _entry([1], -4, 0)}, bytes(4), "run backwards"),
    "offsets three": ({"w": {**_F32, "data_offsets": [0, 4, 8]}}, bytes(4), "two integers"),
    "offsets true": ({"w": {**_F32, "data_offsets": [False, 4]}}, bytes(4), "two integers"),
    "span too short": ({"w": _entry([2], 0, 4)}, bytes(4), "takes 8 bytes, data_offsets give it 4"),
    "half a byte": ({"w": _entry([3], 0, 2, "F4")}, bytes(2), "whole byte"),
    "overlap": ({"a": _entry([2], 0, 8), "b": _entry([1], 4, 8)}, bytes(8), "'b' overlaps"),
    "same bytes twice": ({"a": _F32, "b": _F32}, bytes(4), "overlaps"),
    "hole at the start": ({"a": _entry([1], 4, 8)}, bytes(8), "bytes 0 to 4"),
    "hole between": ({"a": _F32, "b": _entry([1], 8, 12)}, bytes(12), "bytes 4 to 8"),
    "surplus": ({"a": _F32}, bytes(5), "1 bytes after"),
}


@pytest.mark.parametrize("case", _MALFORMED)
def test_refuses_malformed(case: str, tmp_path: Path) -> None:
    header, data, message = _MALFORMED[case]
    path = write(tmp_path / "x.safetensors", safetensors_bytes(header, data))
    with pytest.raises(MalformedFile, match=message) as caught:
        open_contents(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_refuses_truncated(tmp_path: Path) -> None:
    save_file({"w": torch.arange(100.0)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    # Every length from 8 bytes on is known to be too short, whatever it cuts.
    for length in range(8, len(whole), 7):
        with pytest.raises(TruncatedFile):
            open_contents(write(tmp_path / "cut.safetensors", whole[:length]))


def test_refuses_sizes_that_overflow(tmp_path: Path) -> None:
    for shape in ([2**62, 2**62], [2**63], [2**62, 2**62, 0], [10**300]):
        path = write(tmp_path / "x.safetensors", safetensors_bytes({"w": _entry(shape, 0, 4)}, bytes(4)))
        with pytest.raises(LimitExceeded, match="more elements than a file can hold"):
            open_contents(path)
    path = write(tmp_path / "x.safetensors", safetensors_bytes({"w": _entry([1] * 65, 0, 4)}, bytes(4)))
    with pytest.raises(LimitExceeded, match="65 axes"):
        open_contents(path)


def test_refuses_a_header_too_long_before_reading_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", safetensors_bytes(b"{", length=MAX_HEADER + 1))
    with pytest.raises(LimitExceeded, match=str(MAX_HEADER)):
        open_contents(path)


def test_allows_padding_with_spaces_and_sub_byte_elements(tmp_path: Path) -> None:
    header = json.dumps({"w": _entry([4], 0, 2, "F4")}).encode() + b"   "
    path = write(tmp_path / "x.safetensors", safetensors_bytes(header, b"\x12\x34"))
    checkpoint = open_checkpoint(path)
    assert checkpoint.manifest["w"].shape == (4,)
    assert checkpoint.manifest["w"].nbytes == 2


def test_opens_a_terabyte_at_once(tmp_path: Path) -> None:
    rows = 1024
    header = {f"w{index}": _entry([1 << 18, 1 << 10], index << 30, (index + 1) << 30) for index in range(rows)}
    path = write(tmp_path / "x.safetensors", safetensors_bytes(header))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (rows << 30))
    start = time.perf_counter()
    checkpoint = open_checkpoint(path)
    assert time.perf_counter() - start < 0.5
    assert checkpoint.manifest.nbytes == 1 << 40
