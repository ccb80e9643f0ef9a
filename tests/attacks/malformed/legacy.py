"""Torch legacy files: five pickles, the counts, the storages."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.formats.making import integer, mapping, name, pickle_of, storage, tensor, text

from ..case import Case

MAGIC = pickle_of(integer(0x1950A86A20F9469CFC6C))
PROTOCOL = pickle_of(integer(1001))
SYSTEM = pickle_of(mapping(protocol_version=integer(1001), little_endian=b"\x88"))
DATA = struct.pack("<q4f", 4, 1, 2, 3, 4)
_ROOT = mapping(w=tensor())


def keys(*names: str) -> bytes:
    """The pickle of the storages' keys."""
    return pickle_of(b"](" + b"".join(map(text, names)) + b"e")


def build(
    root: bytes = _ROOT,
    *,
    magic: bytes = MAGIC,
    protocol: bytes = PROTOCOL,
    system: bytes = SYSTEM,
    listed: bytes | None = None,
    data: bytes = DATA,
) -> bytes:
    """Write a file; `data` are the counts and the storages."""
    return magic + protocol + system + pickle_of(root) + (keys("0") if listed is None else listed) + data


def _count(count: int) -> bytes:
    return struct.pack("<q", count) + DATA[8:]


_MAKERS: dict[str, Callable[[], bytes]] = {
    "nothing after the magic number": lambda: MAGIC,
    "the protocol is another": lambda: build(protocol=pickle_of(integer(1002))),
    "the protocol is a text": lambda: build(protocol=pickle_of(text("1001"))),
    "no protocol": lambda: build(protocol=b""),
    "the system is missing": lambda: build(system=b""),
    "the object is missing": lambda: MAGIC + PROTOCOL + SYSTEM,
    "the object is cut": lambda: build()[:150],
    "the list of keys is missing": lambda: build(listed=b""),
    "the list of keys is no list": lambda: build(listed=pickle_of(text("0"))),
    "the list of keys holds a number": lambda: build(listed=pickle_of(b"](K\x00e")),
    "the list of keys is empty": lambda: build(listed=pickle_of(b"]"), data=b""),
    "a key stands twice": lambda: build(listed=keys("0", "0"), data=DATA * 2),
    "a key that nothing uses": lambda: build(listed=keys("0", "1"), data=DATA * 2),
    "a storage that is not listed": lambda: build(listed=keys("1")),
    "the list of keys is a bomb": lambda: build(listed=pickle_of(b"(" * 2_000_000)),
    "a count that is too small": lambda: build(data=_count(3)),
    "a count that is too large": lambda: build(data=_count(5)),
    "a negative count": lambda: build(data=_count(-4)),
    "a count that overflows": lambda: build(data=_count((1 << 63) - 1)),
    "no count": lambda: build(data=b""),
    "half a count": lambda: build(data=DATA[:5]),
    "the storage is cut": lambda: build(data=DATA[:-1]),
    "bytes after the last storage": lambda: build() + b"\0",
    "a second file after the first": lambda: build() + build(),
    "a storage of 2^62 elements": lambda: build(mapping(w=tensor(storage(numel=1 << 62))), data=_count(1 << 62)),
    "a storage with a view that leaves it": lambda: build(
        mapping(w=tensor(storage(view=b"(" + text("v") + integer(2) + integer(4) + b"t")))
    ),
    "a storage with a view before it": lambda: build(
        mapping(w=tensor(storage(view=b"(" + text("v") + integer(-1) + integer(4) + b"t")))
    ),
    "a storage with a view of another form": lambda: build(mapping(w=tensor(storage(view=b"(" + text("v") + b"t")))),
    "a storage with two sizes": lambda: build(mapping(w=tensor(), v=tensor(storage(numel=5)))),
    "a storage with two dtypes": lambda: build(mapping(w=tensor(), v=tensor(storage(kind="IntStorage")))),
    "a tensor that leaves its storage": lambda: build(mapping(w=tensor(offset=1))),
    "a persistent id that is a text": lambda: build(mapping(w=text("0") + b"Q", v=tensor())),
    "a persistent id in a line": lambda: build(mapping(w=b"Pstorage\n", v=tensor())),
    "an object that calls a number": lambda: build(mapping(w=tensor(), x=integer(1) + b")R")),
    "nothing but a command": lambda: build(
        name("os", "system") + b"(" + text("true") + b"tR", listed=pickle_of(b"]"), data=b""
    ),
    "no tensor": lambda: build(mapping(x=integer(1)), listed=pickle_of(b"]"), data=b""),
}

CASES = [Case(name, "x.pt", make) for name, make in _MAKERS.items()]
