"""Sound archives around pickles that contradict themselves, or cost more than they should."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.formats.making import integer, integers, mapping, name, pickle_of, storage, tensor, text

from ..archives import Entry, archive
from ..case import Case
from .zips import DATA


def _raw(pickle: bytes) -> Callable[[], bytes]:
    return lambda: archive([Entry(b"a/data.pkl", pickle), Entry(b"a/data/0", DATA)])


def _root(body: bytes) -> Callable[[], bytes]:
    return _raw(pickle_of(body))


def _value(body: bytes) -> Callable[[], bytes]:
    """Beside a sound tensor."""
    return _root(mapping(w=tensor(), x=body))


def _tensor(of: bytes | None = None, **parts: bytes | int) -> Callable[[], bytes]:
    return _root(mapping(w=tensor(of, **parts)))  # type: ignore[arg-type]


def _id(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tQ"


_TYPE = name("torch", "FloatStorage")
_DEEP = 400_000
_SHARED = b"}" + b"".join(b"q\x01" + b"0}(" + text("a") + b"h\x01" + text("b") + b"h\x01u" for _ in range(60))

_MAKERS: dict[str, Callable[[], bytes]] = {
    # tensors
    "an offset beyond the storage": _tensor(offset=1),
    "a negative offset": _tensor(offset=-1),
    "an offset that overflows": _tensor(offset=1 << 62),
    "an offset of more than 64 bits": _tensor(offset=1 << 100),
    "a negative size": _tensor(size=integers(-4)),
    "sizes that overflow": _tensor(size=integers(1 << 32, 1 << 32), stride=integers(1, 1)),
    "a size of more than 64 bits": _tensor(size=integers(1 << 70)),
    "an empty tensor whose sizes overflow": _tensor(size=integers(1 << 62, 1 << 62, 0), stride=integers(1, 1, 1)),
    "a size that is a text": _tensor(size=b"(" + text("4") + b"t"),
    "a size that is true": _tensor(size=b"(\x88t"),
    "a size that is real": _tensor(size=b"(G" + struct.pack(">d", 4.0) + b"t"),
    "no size": _tensor(size=b"N"),
    "a stride beyond the storage": _tensor(stride=integers(2)),
    "a negative stride": _tensor(stride=integers(-1), offset=3),
    "a stride that overflows": _tensor(stride=integers(1 << 62)),
    "a stride of more than 64 bits": _tensor(stride=integers(1 << 90)),
    "more strides than sizes": _tensor(stride=integers(1, 1)),
    "fewer strides than sizes": _tensor(size=integers(2, 2)),
    "no stride": _tensor(stride=b"N"),
    "65 axes": _tensor(size=integers(*[1] * 65), stride=integers(*[1] * 65)),
    "100,000 axes": _tensor(size=integers(*[1] * 100_000), stride=integers(*[1] * 100_000)),
    "a storage that is a number": _tensor(integer(3)),
    "a storage that is a command": _tensor(name("os", "system") + b"(" + text("true") + b"tR"),
    "a tensor of a storage alone": _value(name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + b"tR"),
    "a tensor of nothing": _value(name("torch._utils", "_rebuild_tensor_v2") + b")R"),
    # storages
    "a storage of fewer elements than its record": _tensor(storage(numel=3), size=integers(3)),
    "a storage of more elements than its record": _tensor(storage(numel=5)),
    "a storage of a negative size": _tensor(storage(numel=-4)),
    "a storage of 2^62 elements": _tensor(storage(numel=1 << 62)),
    "a storage of wider elements than its record": _tensor(storage(kind="DoubleStorage")),
    "a storage of two dtypes": _root(mapping(w=tensor(), v=tensor(storage(kind="IntStorage")))),
    "a storage of two sizes": _root(mapping(w=tensor(), v=tensor(storage(numel=5)))),
    "a storage that the archive lacks": _tensor(storage(key="7")),
    "a storage above its folder": _tensor(storage(key="../data/0")),
    "a storage of an absolute name": _tensor(storage(key="/etc/passwd")),
    "a storage whose key is a number": _tensor(_id(text("storage"), _TYPE, integer(0), text("cpu"), integer(4))),
    "a storage whose size is a text": _tensor(_id(text("storage"), _TYPE, text("0"), text("cpu"), text("4"))),
    "a storage of an unknown class": _tensor(storage(kind="SparseStorage")),
    "a storage of another's class": _tensor(
        _id(text("storage"), name("os", "FloatStorage"), text("0"), text("cpu"), integer(4))
    ),
    "a storage of a stranger's class": _tensor(
        _id(text("storage"), name("torch_evil", "FloatStorage"), text("0"), text("cpu"), integer(4))
    ),
    "a storage whose class is a text": _tensor(
        _id(text("storage"), text("FloatStorage"), text("0"), text("cpu"), integer(4))
    ),
    "a persistent id that is a text": _value(text("0") + b"Q"),
    "a persistent id that is a line": _value(b"P0\n"),
    "a persistent id of nothing": _value(b")Q"),
    "a persistent id of another kind": _value(_id(text("file"), text("/etc/passwd"))),
    "a persistent id that is too short": _value(_id(text("storage"), _TYPE, text("0"))),
    "a persistent id that is too long": _value(
        _id(text("storage"), _TYPE, text("0"), text("cpu"), integer(4), b"N", b"N")
    ),
    # state dicts
    "a key twice": _root(b"}(" + text("w") + tensor() + text("w") + tensor() + b"u"),
    "a key as text and as bytes": _root(b"}(" + text("w") + tensor() + b"U\x01w" + tensor() + b"u"),
    "a key flat and nested": _root(b"}(" + text("a.b") + tensor() + text("a") + mapping(b=tensor()) + b"u"),
    "a key that is half a surrogate": _root(b"}" + b"X\x03\x00\x00\x00\xed\xa0\x80" + tensor() + b"s"),
    "no tensor": _root(mapping(epoch=integer(1))),
    "nothing": _root(b"N"),
    "nothing but a command": _root(name("os", "system") + b"(" + text("true") + b"tR"),
    # the pickle
    "no STOP": _raw(pickle_of(mapping(w=tensor()))[:-1]),
    "cut inside a text": _raw(pickle_of(mapping(w=tensor()))[:9]),
    "an unknown opcode": _value(b"\xff"),
    "a protocol of the future": _raw(b"\x80\x06" + mapping(w=tensor()) + b"."),
    "an empty stack": _raw(b"\x80\x02."),
    "nothing above a MARK": _root(mapping(w=tensor()) + b"("),
    "a tuple without its MARK": _root(b"Nt"),
    "a memo that is not set": _value(b"h\x63"),
    "a key without a value": _root(b"}(" + text("w") + tensor() + text("x") + b"u"),
    "a number that is called": _value(integer(1) + b")R"),
    "a call with a list": _value(name("os", "system") + b"]R"),
    "a name made of numbers": _value(b"K\x01K\x02\x93"),
    "an append to a number": _value(b"K\x01Na"),
    "a key set in a number": _value(b"K\x01NNs"),
    "an object without a class": _value(b"(o"),
    "a buffer outside": _value(b"\x97"),
    "a text that is not UTF-8": _value(b"X\x01\x00\x00\x00\xff"),
    "a string without quotes": _value(b"Sx\n"),
    "a number of letters": _value(b"Ix\n"),
    "a real number of letters": _value(b"Fx\n"),
    "a line without end": _raw(b"\x80\x02I12"),
    "a broken escape": _value(b"V\\u00\n"),
    # what costs
    "two million MARKs": _root(b"(" * 2_000_000),
    "bytes of an exabyte": _value(b"\x8e" + struct.pack("<Q", 1 << 60)),
    "a byte array of six gigabytes": _value(b"\x96" + struct.pack("<Q", 6_000_000_000)),
    "an integer of 10 MB": _value(b"\x8b" + struct.pack("<L", 10_000_000) + bytes(10_000_000)),
    "an integer of a million digits": _value(b"L" + b"9" * 1_000_000 + b"L\n"),
    "a line of 20 MB": _value(b"V" + b"a" * 20_000_000 + b"\n"),
    "a name of a megabyte": _value(b"c" + b"a" * 1_000_000 + b"\nx\n"),
    "lists inside one another": _value(b"]" * _DEEP + b"a" * (_DEEP - 1)),
    "tuples inside one another": _value(b")" + b"\x85" * _DEEP),
    "mappings inside one another": _value(b"}" + b"N}" * _DEEP + b"s" * _DEEP),
    "states inside one another": _value(name("m", "C") + b")R" + (name("m", "C") + b")R") * 5_000 + b"b" * 5_000),
    "a shared mapping that unfolds without end": _root(mapping(w=tensor(), m=_SHARED)),
    "a shared list that unfolds without end": _value(b"]" + (b"q\x600](h\x60h\x60e") * 200),
    "a shared tuple that unfolds without end": _value(b")" + (b"q\x600(h\x60h\x60t") * 200),
    "two hundred thousand keys below a long one": _root(
        mapping(
            w=tensor(),
            x=b"}"
            + b"".join(text("k" * 90) + b"}" for _ in range(40))
            + b"("
            + b"".join(b"M" + struct.pack("<H", n % 65536) + b"N" for n in range(200_000))
            + b"u"
            + b"s" * 40,
        )
    ),
    "twelve million opcodes": _root(b"]" + b"N" * 12_000_000),
    "six million lists": _root(b"](" + b"]" * 6_000_000 + b"e"),
    "six million mappings": _root(b"](" + b"}" * 6_000_000 + b"e"),
    "six million tuples": _root(b"](" + b"N\x85" * 6_000_000 + b"e"),
    "three million pairs": _root(b"}(" + b"NN" * 3_000_000 + b"u"),
    "a list copied again and again": _root(
        name("builtins", "list") + b"q\x000](" + b"N" * 100_000 + b"e\x85q\x010](" + b"h\x00h\x01R" * 100_000 + b"e"
    ),
    "a mapping copied again and again": _root(
        name("collections", "OrderedDict")
        + b"q\x000}("
        + b"NN" * 100_000
        + b"u\x85q\x010]("
        + b"h\x00h\x01R" * 100_000
        + b"e"
    ),
    "a text encoded again and again": _root(
        name("_codecs", "encode")
        + b"q\x000"
        + b"(X\x00\x00\x10\x00"
        + b"a" * (1 << 20)
        + text("latin1")
        + b"tq\x010]("
        + b"h\x00h\x01R" * 100_000
        + b"e"
    ),
    "a storage in bytes, read again and again": _root(
        name("torch.storage", "_load_from_bytes")
        + b"q\x000B\x00\x10\x00\x00"
        + (b"\x80\x02" + b"N0" * 3000)[:4096]
        + b"\x85q\x010]("
        + b"h\x00h\x01R" * 300_000
        + b"e"
    ),
    "a long shape, looked at again and again": _root(
        name("torch._utils", "_rebuild_tensor_v2")
        + b"q\x000("
        + storage()
        + integer(0)
        + b"("
        + b"K\x01" * 100_000
        + b"t2tq\x010]("
        + b"h\x00h\x01R" * 100_000
        + b"e"
    ),
    "attributes added again and again": _root(
        b"}(" + b"NN" * 100_000 + b"uq\x010" + name("m", "C") + b")R" + b"h\x01b" * 100_000
    ),
    "a long state, set again and again": _root(
        name("m", "C") + b"q\x000(" + b"N" * 100_000 + b"tq\x010](" + b"h\x00)Rh\x01b" * 300_000 + b"e"
    ),
    "a million names": _root(b"](" + b"co\nx\n" * 1_000_000 + b"e"),
    "a million calls": _root(b"co\nx\nq\x000](" + b"h\x00)R" * 1_000_000 + b"e"),
    "a million memos": _root(b"](" + b"N\x94" * 3_000_000 + b"e"),
    "a pickle of 100 MB of text": _root(b"](" + (b"X\x00\x00\x10\x00" + bytes(1 << 20)) * 100 + b"e"),
    "a key of a megabyte in each of 1,000 mappings": _root(
        text("k" * (1 << 20))
        + b"q\x000"
        + mapping(w=tensor(), x=b"}" + b"h\x00}" * 900 + b"s" * 900, y=b"}" + b"h\x00" + tensor() + b"s")
    ),
}

CASES = [Case(name, "x.pth", make) for name, make in _MAKERS.items()]
