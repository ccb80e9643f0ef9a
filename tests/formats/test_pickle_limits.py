"""Pickles that are broken, or that cost more than they should: refused in one line, at once."""

from __future__ import annotations

import resource
import struct
import time
from pathlib import Path

import pytest

from ckptfix.errors import LimitExceeded, MalformedFile, RefusedContent, TruncatedFile
from ckptfix.formats import Pairs, open_checkpoint, open_contents
from ckptfix.formats.base import Node
from ckptfix.formats.pickle import limits
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.stream import Stream

from .making import (
    integer,
    mapping,
    name,
    pickle_of,
    tensor,
    text,
    write,
    zip_bytes,
)


def _load(data: bytes) -> Node:
    return Machine(Stream.over(data), lambda found: found).load()


def _archive(path: Path, body: bytes, **records: bytes) -> Path:
    return write(path, zip_bytes(pickle_of(body), {"data/0": bytes(16)} | {f"data/{k}": v for k, v in records.items()}))


_BROKEN = {
    "empty": (b"", TruncatedFile, "before its STOP"),
    "no stop": (b"\x80\x02N", TruncatedFile, "before its STOP"),
    "no line end": (b"I12", TruncatedFile, "ends inside a line"),
    "not a pickle": (b"\xffabc", MalformedFile, "unknown opcode, 0xff"),
    "nothing left": (b"\x80\x02.", MalformedFile, "empty stack"),
    "nothing above the mark": (b"N(.", MalformedFile, "empty stack"),
    "no mark": (b"Nt.", MalformedFile, "lacks a MARK"),
    "below the mark": (b"N(R.", MalformedFile, "empty stack"),
    "tuple below the mark": (b"NN(N\x86.", MalformedFile, "empty stack"),
    "pop nothing": (b"0.", MalformedFile, "lacks a MARK"),
    "dup nothing": (b"2.", MalformedFile, "empty stack"),
    "no such memo": (b"h\x00.", MalformedFile, "asks for memo 0"),
    "append to a number": (b"K\x01Na.", MalformedFile, "appends to int"),
    "append to a tuple": (b")Na.", MalformedFile, "appends to tuple"),
    "key of a number": (b"K\x01NNs.", MalformedFile, "sets a key of int"),
    "key without value": (b"}(Nu.", MalformedFile, "key without a value"),
    "dict of one": (b"(Nd.", MalformedFile, "key without a value"),
    "call of a number": (b"K\x01)R.", MalformedFile, "cannot be called, int"),
    "call with a list": (b"cos\nsystem\n]R.", MalformedFile, "arguments that are no tuple"),
    "keywords with a list": (b"cos\nsystem\n]}\x92.", MalformedFile, "arguments that are no tuple"),
    "object without class": (b"(o.", MalformedFile, "without a class"),
    "global of numbers": (b"NN\x93.", MalformedFile, "something other than text"),
    "global not utf-8": (b"c\xff\nx\n.", MalformedFile, "not utf-8"),
    "text not utf-8": (b"X\x01\x00\x00\x00\xff.", MalformedFile, "not utf-8"),
    "string without quotes": (b"Sabc\n.", MalformedFile, "without its quotes"),
    "string with half an escape": (b"S'\\x0'\n.", MalformedFile, "broken escape"),
    "text with half an escape": (b"V\\u00\n.", MalformedFile, "not raw-unicode-escape"),
    "number is none": (b"Iabc\n.", MalformedFile, "a number that is none"),
    "float is none": (b"Fabc\n.", MalformedFile, "a number that is none"),
    "newer protocol": (b"\x80\x06N.", MalformedFile, "newer than 5"),
    "out of band": (b"\x97.", MalformedFile, "buffer outside"),
    "text longer than the file": (b"X\xff\xff\x00\x00abc.", TruncatedFile, "before its STOP"),
    "byte array of a terabyte": (b"\x96" + struct.pack("<Q", 1 << 40) + b".", LimitExceeded, "argument of"),
    "text of an exabyte": (b"\x8d" + struct.pack("<Q", 1 << 62) + b".", LimitExceeded, "argument of"),
    "long integer": (b"\x8b" + struct.pack("<L", 100_000) + bytes(100_000) + b".", LimitExceeded, "integer of 100000"),
    "long digits": (b"L" + b"9" * 10_000 + b"\n.", LimitExceeded, "10000 digits"),
    "long line": (b"V" + b"a" * (limits.LINE * 5) + b"\n.", LimitExceeded, "a line of more than"),
    "long name": (b"c" + b"a" * 2000 + b"\nx\n.", LimitExceeded, "a global of"),
    "two million marks": (b"(" * 2_000_000 + b".", LimitExceeded, "marks"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_refuses_broken_pickles(case: str) -> None:
    data, error, message = _BROKEN[case]
    start = time.perf_counter()
    with pytest.raises(error, match=message):
        _load(data)
    assert time.perf_counter() - start < 2


_DEEP = 100_000

_BOMBS = {
    "deep lists": b"]" * _DEEP + b"a" * (_DEEP - 1),
    "deep tuples": b")" + b"\x85" * _DEEP,
    "deep dicts": b"}" + b"".join([b"N}"] * _DEEP) + b"s" * _DEEP,
    "deep records": b"cm\nC\n" + b")R" * 0 + b"".join([b"cm\nC\n)R"] * 2_000) + b"b" * 2_000,
}


@pytest.mark.parametrize("case", _BOMBS)
def test_refuses_deep_nesting_without_recursing(case: str, tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="containers deep"):
        open_contents(_archive(tmp_path / "x.pth", mapping(w=tensor(), x=_BOMBS[case])))


def _doubled(levels: int) -> bytes:
    """A list of two of the list of two of ...: 2^levels leaves in a few bytes."""
    return b"]" + b"".join(b"q\x01" + b"](h\x01h\x01e" for _ in range(levels)).replace(b"q\x01](h", b"q\x010](h")


def test_visits_shared_values_once(tmp_path: Path) -> None:
    start = time.perf_counter()
    checkpoint = open_checkpoint(_archive(tmp_path / "x.pth", mapping(model=mapping(w=tensor()), bomb=_doubled(200))))
    assert list(checkpoint.tensors) == ["w"]
    assert time.perf_counter() - start < 1


def test_long_keys_of_a_deep_nest_are_not_joined(tmp_path: Path) -> None:
    # One key of a megabyte, shared by 900 mappings inside one another: joined it would be 400 GB.
    key = text("k" * (1 << 20)) + b"q\x00" + b"0"
    nest = b"}" + b"h\x00}" * 900 + b"h\x00cm\nC\n)R" + b"s" * 901
    body = key + b"}" + text("w") + tensor() + b"s" + text("x") + nest + b"s"
    start = time.perf_counter()
    contents = open_contents(_archive(tmp_path / "x.pth", body))
    assert [str(value) for _, value in contents.opaque] == ["m.C"]
    assert len(contents.opaque[0][0]) < 2000
    assert contents.opaque[0][0].startswith("…")
    with pytest.raises(LimitExceeded, match="a key is longer than"):
        open_checkpoint(tmp_path / "x.pth")
    body = key + b"}" + text("x") + nest + b"s"
    with pytest.raises(LimitExceeded, match="a key is longer than"):
        open_checkpoint(_archive(tmp_path / "x.pth", body))
    assert time.perf_counter() - start < 2


def test_refuses_mappings_that_unfold_without_end(tmp_path: Path) -> None:
    # Inside a state dict a shared mapping counts under each of its keys, so a shared graph of them is a bomb.
    levels = b"".join(b"q\x010}(" + text("a") + b"h\x01" + text("b") + b"h\x01u" for _ in range(40))
    body = mapping(w=tensor(), bomb=mapping(v=tensor()) + levels)
    start = time.perf_counter()
    with pytest.raises(RefusedContent, match="unfold into far more"):
        open_checkpoint(_archive(tmp_path / "x.pth", body))
    assert time.perf_counter() - start < 60


def test_never_hashes_a_key(tmp_path: Path) -> None:
    # Keys that Python cannot hash, or that would take for ever to hash.
    body = b"}(" + b"]N" + b"}N" + _doubled(100) + b"N" + text("w") + b"Nu"
    contents = open_contents(_archive(tmp_path / "x.pth", body))
    assert isinstance(contents.root, Pairs)
    assert len(contents.root.items) == 4


def test_a_value_may_contain_itself(tmp_path: Path) -> None:
    body = b"}q\x01(" + text("w") + tensor() + text("self") + b"h\x01" + text("list") + b"]q\x02h\x02au"
    checkpoint = open_checkpoint(_archive(tmp_path / "x.pth", body))
    assert list(checkpoint.tensors) == ["w"]
    assert list(open_checkpoint(tmp_path / "x.pth", select=".").tensors) == ["w"]


@pytest.mark.parametrize(
    "call",
    [
        name("builtins", "bytearray") + integer(10**12) + b"\x85R",
        name("builtins", "bytes") + integer(10**12) + b"\x85R",
        name("builtins", "complex") + text("1" * 10) + b"\x85R",
        name("builtins", "list") + integer(10**12) + b"\x85R",
        name("builtins", "range") + integer(10**12) + b"\x85R",
        name("_codecs", "encode") + b"(" + text("00") + text("hex") + b"tR",
    ],
)
def test_known_constructors_never_allocate_what_they_are_told(call: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoint = open_checkpoint(_archive(tmp_path / "x.pth", mapping(w=tensor(), x=call)))
    assert checkpoint.ignored == ("x",)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
