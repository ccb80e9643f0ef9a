"""safetensors files whose header contradicts itself, its JSON, or the data."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.formats.making import safetensors_bytes

from ..case import Case


def _entry(shape: list[object], begin: object, end: object, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


_W = _entry([1], 0, 4)


def _header(header: object, data: bytes = bytes(4)) -> Callable[[], bytes]:
    return lambda: safetensors_bytes(header, data)


def _field(**fields: object) -> Callable[[], bytes]:
    """One entry with other fields; None leaves one out."""
    return _header({"w": {key: value for key, value in {**_W, **fields}.items() if value is not None}})


def _length(length: int) -> Callable[[], bytes]:
    return lambda: safetensors_bytes({"w": _W}, bytes(4), length=length)


_TEXT = json.dumps({"w": _W})
_BYTES = json.dumps(_W).encode()

_MAKERS: dict[str, Callable[[], bytes]] = {
    # the length
    "a header of 2^63 bytes": _length(1 << 63),
    "a header one byte over the limit": _length(100_000_001),
    "a header longer than the file": _length(5000),
    "a header that is cut short": _length(20),
    "a header of no bytes": lambda: bytes(8) + b"{}",
    "no header": lambda: bytes(8),
    "half a length": lambda: b"\x10\0\0",
    "a header that takes in the data": lambda: safetensors_bytes(_TEXT.encode() + bytes(4)),
    # JSON
    "blanks before the header": _header(f" {_TEXT}".encode()),
    "a newline before the header": _header(f"\n{_TEXT}".encode()),
    "a byte order mark": _header(b"\xef\xbb\xbf" + _TEXT.encode()),
    "a header padded with zeros": _header(_TEXT.encode() + b"\0\0\0"),
    "a header padded with newlines": _header(_TEXT.encode() + b"\n\n"),
    "a header that is a list": _header(b"[1]"),
    "a header that is a text": _header(b'"x"'),
    "a header that is no JSON": _header(b"{w: 1}"),
    "a comma too many": _header(_TEXT[:-1].encode() + b",}"),
    "a second object": _header((_TEXT + "{}").encode()),
    "a header in UTF-16": _header(_TEXT.encode("utf-16-le")),
    "a header that is not UTF-8": _header(b'{"\xff": 1}'),
    "a NaN": _header(b'{"w": NaN}'),
    "an infinity": _header(b'{"w": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}'),
    "a number of 5,000 digits": _header(b'{"w": ' + b"9" * 5000 + b"}"),
    "an offset of minus zero": _header(b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [-0, 4]}}'),
    "an extent of minus zero": _header(b'{"w": {"dtype": "F32", "shape": [-0], "data_offsets": [0, 0]}}', b""),
    "lists inside one another": _header(b'{"w":' + b"[" * 1_000_000 + b"}"),
    "mappings inside one another": _header(b'{"w":' * 300_000 + b"1" + b"}" * 300_000),
    "a key twice": _header(b'{"w": %s, "w": %s}' % (_BYTES, _BYTES)),
    "a key twice, once escaped": _header(b'{"w": %s, "\\u0077": %s}' % (_BYTES, _BYTES)),
    "a field twice": _header(b'{"w": {"dtype": "F32", "dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}'),
    "a key twice in the metadata": _header(b'{"__metadata__": {"a": "1", "a": "2"}, "w": %s}' % _BYTES),
    "the metadata twice": _header(b'{"__metadata__": {}, "__metadata__": {}, "w": %s}' % _BYTES),
    "metadata that is a number": _header({"__metadata__": {"a": 1}, "w": _W}),
    "metadata that is a mapping": _header({"__metadata__": {"a": {}}, "w": _W}),
    "metadata that is a list": _header({"__metadata__": [], "w": _W}),
    "metadata that is null": _header({"__metadata__": None, "w": _W}),
    "metadata that is half a surrogate": _header(b'{"__metadata__": {"a": "\\ud800"}, "w": %s}' % _BYTES),
    "a key that is half a surrogate": _header(b'{"\\udc00": %s}' % _BYTES),
    # entries
    "an entry that is null": _header({"w": None}),
    "an entry that is a list": _header({"w": []}),
    "no dtype": _field(dtype=None),
    "no shape": _field(shape=None),
    "no offsets": _field(data_offsets=None),
    "a field too many": _field(strides=[1]),
    "a dtype that does not exist": _field(dtype="F33"),
    "a dtype in small letters": _field(dtype="f32"),
    "a dtype that is a number": _field(dtype=32),
    "a dtype that is a list": _field(dtype=["F32"]),
    "a shape that is a text": _field(shape="1"),
    "a shape that is nested": _field(shape=[[1]]),
    "a negative extent": _field(shape=[-1]),
    "an extent that is real": _field(shape=[1.0]),
    "an extent that is true": _field(shape=[True]),
    "an extent of 2^63": _field(shape=[1 << 63]),
    "an extent of 10^300": _field(shape=[10**300]),
    "extents that overflow": _field(shape=[1 << 32, 1 << 32]),
    "an empty tensor whose extents overflow": _field(shape=[1 << 62, 1 << 62, 0], data_offsets=[0, 0]),
    "65 axes": _field(shape=[1] * 65),
    "a million axes": _field(shape=[1] * 1_000_000),
    "one offset": _field(data_offsets=[4]),
    "three offsets": _field(data_offsets=[0, 4, 8]),
    "an offset that is real": _field(data_offsets=[0, 4.0]),
    "an offset that is false": _field(data_offsets=[False, 4]),
    "an offset that is a text": _field(data_offsets=["0", "4"]),
    "a negative offset": _field(data_offsets=[-4, 0]),
    "offsets that run backwards": _field(data_offsets=[4, 0]),
    "offsets that overflow": _field(data_offsets=[(1 << 64) - 4, 1 << 64]),
    "a tensor of fewer bytes than its shape": _field(shape=[2]),
    "a tensor of more bytes than its shape": _field(dtype="U8"),
    "half a byte": _header({"w": _entry([3], 0, 2, "F4")}, bytes(2)),
    # tiling
    "two tensors overlap": _header({"a": _entry([2], 0, 8), "b": _entry([1], 4, 8)}, bytes(8)),
    "two tensors of the same bytes": _header({"a": _W, "b": _W}),
    "a tensor inside another": _header({"a": _entry([3], 0, 12), "b": _entry([1], 4, 8)}, bytes(12)),
    "a hole at the start": _header({"a": _entry([1], 4, 8)}, bytes(8)),
    "a hole in the middle": _header({"a": _W, "b": _entry([1], 8, 12)}, bytes(12)),
    "bytes after the last tensor": _header({"w": _W}, bytes(5)),
    "a tensor beyond the file": _header({"w": _W}, bytes(3)),
    "an empty tensor beyond the end": _header({"w": _W, "e": _entry([0], 100, 100)}),
    "an empty tensor inside another": _header({"w": _W, "e": _entry([0], 2, 2)}),
    "no data": _header({"w": _W}, b""),
    "no tensor": _header({}, b""),
    "no tensor but metadata": _header({"__metadata__": {"a": "b"}}, b""),
    # what costs
    "a million entries that say nothing": lambda: safetensors_bytes(
        ("{" + ",".join(f'"{n}":0' for n in range(1_000_000)) + "}").encode()
    ),
    "a hundred thousand tensors of the same bytes": lambda: safetensors_bytes(
        {f"weight_{n}": _entry([200, 200], 0, 160_000) for n in range(100_000)}, bytes(160_000)
    ),
    "a million mappings": lambda: safetensors_bytes(b'{"w":[' + b"{}," * 999_990 + b"{}]}"),
    "twelve million lists": lambda: safetensors_bytes(b'{"w":[' + b"[]," * 12_000_000 + b"[]]}"),
    "twelve million texts": lambda: safetensors_bytes(b'{"w":[' + b'"ab",' * 12_000_000 + b'"ab"]}'),
    "a hundred megabytes of blanks": lambda: safetensors_bytes(b"{" + b" " * 99_000_000),
    "a key of a hundred megabytes": lambda: safetensors_bytes(b'{"' + b"k" * 99_000_000 + b'":0}'),
    "a key of a hundred megabytes, wide": lambda: safetensors_bytes(
        b'{"' + b"k" * 95_000_000 + "\N{SNOWMAN}\N{CHERRIES}".encode() + b'":0}'
    ),
    "a key of twenty megabytes, wide": lambda: safetensors_bytes(
        b'{"' + b"k" * 20_000_000 + "\N{CHERRIES}".encode() + b'":0}'
    ),
}

CASES = [Case(name, "x.safetensors", make) for name, make in _MAKERS.items()]
