"""Torch zip archives whose fields contradict one another, or what they describe."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.formats.making import mapping, pickle_of, tensor

from ..archives import Entry, archive, deflate, deflated
from ..case import Case

PICKLE = pickle_of(mapping(w=tensor()))
DATA = struct.pack("<4f", 1, 2, 3, 4)
_OTHER = struct.pack("<4f", 5, 6, 7, 8)


def entries(**more: bytes) -> list[Entry]:
    """A sound archive: one storage of four numbers, and further records."""
    return [
        Entry(b"a/data.pkl", PICKLE),
        Entry(b"a/data/0", DATA),
        *(Entry(f"a/{name}".encode(), data) for name, data in more.items()),
    ]


def _with(storage: Entry) -> Callable[[], bytes]:
    return lambda: archive([Entry(b"a/data.pkl", PICKLE), storage])


def _local(**fields: int | bytes) -> Callable[[], bytes]:
    """The local header of the storage says something else than the directory."""
    return _with(Entry(b"a/data/0", DATA, local=fields))


def _central(**fields: int | bytes) -> Callable[[], bytes]:
    """The directory says something else than the local header of the storage."""
    return _with(Entry(b"a/data/0", DATA, central=fields))


def _both(**fields: int | bytes) -> Callable[[], bytes]:
    """Both headers of the storage agree on something that cannot be."""
    return _with(Entry(b"a/data/0", DATA, local=fields, central=fields))


def _end(**fields: int | bytes) -> Callable[[], bytes]:
    return lambda: archive(entries(), end=fields)


def _end64(**fields: int | bytes) -> Callable[[], bytes]:
    return lambda: archive(entries(), end64=fields)


def _also(*more: Entry) -> Callable[[], bytes]:
    return lambda: archive([*entries(), *more])


def _without_pickle(*more: Entry) -> Callable[[], bytes]:
    return lambda: archive([Entry(b"a/data/0", DATA), *more])


def _wide(extra: bytes, **fields: int | bytes) -> Callable[[], bytes]:
    """Sizes of the directory that are saturated, and the extra field that has to give them."""
    return _with(Entry(b"a/data/0", DATA, central=fields, central_extra=extra))


_FULL = 0xFFFFFFFF
_BOMB = deflate(bytes(300 << 20))

_MAKERS: dict[str, Callable[[], bytes]] = {
    # names
    "a name twice, with other bytes": _also(Entry(b"a/data/0", _OTHER)),
    "two pickles of one name": _also(Entry(b"a/data.pkl", PICKLE)),
    "a name twice in the directory, for one entry": _also(
        Entry(b"a/x", b"", central={"name": b"a/data/0", "offset": 0})
    ),
    "names that differ in case": _also(Entry(b"a/data.PKL", pickle_of(mapping(w=tensor(offset=0))))),
    "storages whose names differ in case": lambda: archive(
        [*entries(), Entry(b"a/DATA/0", _OTHER)],
    ),
    "a name with a NUL inside": _also(Entry(b"a/data/0\0.txt", _OTHER)),
    "a second name in an Info-ZIP extra field": _also(
        Entry(b"a/x", _OTHER, central_extra=struct.pack("<2HBL", 0x7075, 13, 1, 0) + b"a/data/0")
    ),
    "the local name is another": _local(name=b"a/data/1"),
    "the local name is longer": _local(name=b"a/data/00"),
    "the local name is shorter": _local(name=b"a/data/"),
    "the local length of the name is wrong": _local(name_length=3),
    "an entry outside of the prefix": _also(Entry(b"b/data/0", _OTHER)),
    "a second archive beside the first": _also(Entry(b"b/data.pkl", PICKLE), Entry(b"b/data/0", _OTHER)),
    "an entry at the top": _also(Entry(b"data.pkl", PICKLE)),
    "an entry above the folder": _also(Entry(b"../a/data/0", _OTHER)),
    "an absolute entry": _also(Entry(b"/etc/passwd", b"x")),
    # headers of an entry
    "the local method is another": _local(method=8),
    "the local CRC is another": _local(crc=1),
    "the local stored size is another": _local(stored=15),
    "the local size is another": _local(size=17),
    "the local entry is encrypted": _local(flags=1),
    "the directory's entry is encrypted": _central(flags=1),
    "both are encrypted": _both(flags=1),
    "strong encryption": _both(flags=1 << 6),
    "masked headers": _both(flags=1 << 13),
    "method bzip2": _both(method=12),
    "method lzma": _both(method=14),
    "method zstandard": _both(method=93),
    "a method that does not exist": _both(method=0xFFFF),
    "stored in fewer bytes than it has": _both(size=20),
    "stored in more bytes than it has": _both(stored=20),
    "a storage that is marked as a folder": _central(external=0x10),
    "bytes in a folder": _also(Entry(b"a/x/", DATA)),
    "the local signature is broken": _local(signature=b"PK\3\5"),
    "the directory's signature is broken": _central(signature=b"PK\1\3"),
    "the header lies beyond the file": _central(offset=1 << 30),
    "the header lies inside the pickle": _central(offset=45),
    "two entries share one header": _also(Entry(b"a/data/1", DATA, central={"offset": 30 + 10 + len(PICKLE)})),
    "an entry reaches over the next": lambda: archive(
        [
            Entry(b"a/data/0", DATA, {"stored": 90, "size": 90}, {"stored": 90, "size": 90}),
            Entry(b"a/data.pkl", PICKLE),
        ]
    ),
    "an entry inside the data of another": lambda: archive(
        [
            Entry(b"a/data.pkl", PICKLE),
            Entry(b"a/data/0", DATA),
            Entry(b"a/x", archive([Entry(b"a/y", DATA)])[:50]),
            Entry(
                b"a/y",
                b"",
                central={"offset": 40 + len(PICKLE) + 38 + 16 + 33, "stored": 16, "size": 16, "crc": 0x9DDF3F18},
            ),
        ]
    ),
    "an entry runs into the directory": _both(stored=90, size=90),
    "an entry runs past the file": _both(stored=1 << 20, size=1 << 20),
    # the directory and its end
    "the directory begins at the end": _end(offset=len(archive(entries()))),
    "the directory's size is too small": _end(size=40),
    "the directory's size is too large": _end(size=1 << 20),
    "the directory lists more than it declares": _end(count=1, here=1),
    "the directory lists fewer than it declares": _end(count=3, here=3),
    "the directory's size is none": _end(size=0, count=0, here=0),
    "the directory lies on another disk": _end(start_disk=1),
    "the file is one disk of several": _end(disk=1),
    "the comment is longer than it says": lambda: archive(entries(), after=b"more"),
    "the comment is shorter than it says": _end(comment_length=5),
    "no end record": lambda: archive(entries())[:-22],
    "half an end record": lambda: archive(entries())[:-10],
    "two end records": lambda: archive(entries()) + archive(entries())[-22:],
    "a second archive after the first": lambda: archive(entries()) + archive(entries()),
    "bytes between directory and end": lambda: archive(entries(), before_end=b"hidden"),
    "the directory ends inside an entry": lambda: archive(entries(), cut_directory=7),
    "the directory ends inside a header": lambda: archive(entries(), cut_directory=30),
    "a name beyond the directory": _central(name_length=500),
    "an extra field beyond the directory": _central(extra_length=500),
    "a comment beyond the directory": _central(comment_length=500),
    "two thousand million entries": _end64(count=1 << 31, here=1 << 31),
    "more entries than any checkpoint has": lambda: archive(
        [Entry(b"a/%d" % n, b"") for n in range(200_001)], end={"count": 0xFFFF, "here": 0xFFFF}, end64={}
    ),
    "a directory of an exabyte": _end64(size=1 << 60),
    # zip64
    "the zip64 record lies beyond the file": lambda: archive(entries(), locator={"offset": 1 << 50}),
    "the zip64 record lies elsewhere": lambda: archive(entries(), locator={"offset": 3}),
    "the zip64 record has no signature": _end64(signature=b"PK\6\5"),
    "the zip64 count is another": _end64(count=5),
    "the zip64 size is another": _end64(size=5),
    "the zip64 offset is another": _end64(offset=5),
    "the zip64 directory overflows": lambda: archive(
        entries(), end={"offset": _FULL, "size": _FULL}, end64={"offset": (1 << 64) - 8, "size": 100}
    ),
    "the zip64 directory lies on another disk": _end64(start_disk=1),
    "zip64 sizes are missing": _wide(b"", stored=_FULL, size=_FULL),
    "zip64 sizes are half missing": _wide(struct.pack("<2HQ", 1, 8, 16), stored=_FULL, size=_FULL),
    "zip64 sizes are cut off": _wide(struct.pack("<2H", 1, 16) + b"\x10", stored=_FULL, size=_FULL),
    "zip64 sizes beyond the file": _wide(struct.pack("<2H2Q", 1, 16, 1 << 40, 1 << 40), stored=_FULL, size=_FULL),
    "zip64 sizes that overflow": _wide(
        struct.pack("<2H2Q", 1, 16, (1 << 64) - 1, (1 << 64) - 1), stored=_FULL, size=_FULL
    ),
    "a zip64 offset that overflows": _wide(struct.pack("<2HQ", 1, 8, (1 << 64) - 1), offset=_FULL),
    # the records
    "an empty pickle": _without_pickle(Entry(b"a/data.pkl", b"")),
    "bytes after the pickle": _without_pickle(Entry(b"a/data.pkl", PICKLE + b"more")),
    "a second pickle after the first": _without_pickle(Entry(b"a/data.pkl", PICKLE + PICKLE)),
    "the pickle's CRC is wrong": _without_pickle(Entry(b"a/data.pkl", PICKLE, {"crc": 7}, {"crc": 7})),
    "the storage's CRC is wrong": _both(crc=7),
    "no storage": lambda: archive([Entry(b"a/data.pkl", PICKLE)]),
    "a storage that is too short": _with(Entry(b"a/data/0", DATA[:12])),
    "a storage that is too long": _with(Entry(b"a/data/0", DATA + DATA)),
    "an empty storage": _with(Entry(b"a/data/0", b"")),
    "a byte order that is none": lambda: archive(entries(byteorder=b"middle")),
    "a byte order of a megabyte": lambda: archive(entries(byteorder=bytes(1 << 20))),
    "metadata that is no JSON": lambda: archive(entries(**{"ckptfix-metadata.json": b"{"})),
    "metadata that is no map of texts": lambda: archive(entries(**{"ckptfix-metadata.json": b'{"a": 1}'})),
    "metadata nested without end": lambda: archive(entries(**{"ckptfix-metadata.json": b"[" * 200_000})),
    # deflate
    "a deflate bomb that tells its size": _without_pickle(
        Entry(
            b"a/data.pkl",
            b"",
            {"method": 8, "size": 300 << 20, "stored": len(_BOMB)},
            {"method": 8, "size": 300 << 20, "stored": len(_BOMB)},
            _BOMB,
        )
    ),
    "a deflate bomb that hides its size": _without_pickle(deflated(b"a/data.pkl", PICKLE, _BOMB)),
    "a deflate bomb for a storage": _with(deflated(b"a/data/0", DATA, _BOMB)),
    "a pickle that inflates to less": _without_pickle(deflated(b"a/data.pkl", PICKLE, deflate(PICKLE[:-5]))),
    "a pickle that inflates to more": _without_pickle(deflated(b"a/data.pkl", PICKLE, deflate(PICKLE + PICKLE))),
    "a storage that inflates to less": _with(deflated(b"a/data/0", DATA, deflate(DATA[:8]))),
    "a storage that inflates to more": _with(deflated(b"a/data/0", DATA, deflate(DATA * 3))),
    "a storage that inflates to other bytes": _with(deflated(b"a/data/0", DATA, deflate(_OTHER))),
    "a broken deflate stream": _with(deflated(b"a/data/0", DATA, b"\xff" * 20)),
    "half a deflate stream": _with(deflated(b"a/data/0", DATA, deflate(DATA)[:-4])),
    "bytes after a deflate stream": _with(deflated(b"a/data/0", DATA, deflate(DATA) + b"hidden")),
    "deflated by one header only": _with(Entry(b"a/data/0", DATA, {"method": 8}, {}, deflate(DATA))),
    # the file
    "cut inside the pickle": lambda: archive(entries())[:60],
    "cut inside the directory": lambda: archive(entries())[:-40],
}

_UNKNOWN = {
    "an archive of nothing": lambda: archive([]),
    "a spanned archive": lambda: b"PK\7\x08" + archive(entries()),
    "text before the archive": lambda: b"#!/bin/sh\n" + archive(entries()),
    "no pickle": _without_pickle(),
    "a pickle in an inner folder": _without_pickle(Entry(b"a/b/data.pkl", PICKLE)),
    "another archive": lambda: archive([Entry(b"readme.txt", b"hello")]),
}

CASES = [
    *(Case(name, "x.pth", make) for name, make in _MAKERS.items()),
    *(Case(name, "x.pth", make, unknown=True) for name, make in _UNKNOWN.items()),
]
