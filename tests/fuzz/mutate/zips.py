"""Zip archives: what their headers say, the order and names of members, and what is inside these.

A `.distcp` file is several of them, one after the other, with JSON behind: one is changed, and the rest stay.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from tests.attacks.archives import CENTRAL, END, END64, LOCAL, LOCATOR, Entry, Fields, archive, deflate, deflated
from tests.fuzz.mutate import headers
from tests.fuzz.mutate.numbers import near, number, text

UNSOUND = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError)

Inner = Callable[[bytes, Random, Sequence[bytes]], bytes]

_LONG = {"crc", "stored", "size", "offset", "external"}
_MARK = b"CKPTFIX1"


def changer(inner: Inner) -> Inner:
    """Make the mutator. `inner` changes a member."""

    def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        if data.count(b"PK\5\6") > 1 or data.endswith(_MARK):
            return _change_one_of_several(data, rng, change)
        entries = list(_entries(data))
        ends: dict[str, Fields] = {}
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if rng.random() < 0.55:
                _change_member(entries, rng, others, inner)
            else:
                _CHANGES[rng.randrange(len(_CHANGES))](entries, ends, rng)
        noise = rng.randbytes(rng.choice((1, 22, 100))) if rng.random() < 0.03 else b""
        cut = rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 46))
        return archive(entries, **ends, cut_directory=cut, after=noise)

    return change


@lru_cache(maxsize=64)
def _entries(data: bytes) -> tuple[Entry, ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in found.infolist()):
            raise zipfile.BadZipFile("another compression")
        return tuple(
            deflated(info.filename.encode(), found.read(info))
            if info.compress_type == zipfile.ZIP_DEFLATED
            else Entry(info.filename.encode(), found.read(info))
            for info in found.infolist()
        )


def _change_one_of_several(data: bytes, rng: Random, change: Inner) -> bytes:
    """Change an item in its place, or the list of items at the end."""
    if data.endswith(_MARK) and rng.random() < 0.4:
        length = int.from_bytes(data[-16:-8], "little")
        listed = headers.change_json(data[-16 - length : -16], rng, ())
        return data[: -16 - length] + listed + len(listed).to_bytes(8, "little") + _MARK
    starts = [0, *(at for at in _ends(data) if data[at : at + 4] == b"PK\3\4")]
    start = rng.choice(starts)
    stop = next((end for end in _ends(data) if end > start), len(data))
    changed = change(data[start:stop], rng, [data[other : other + stop - start] for other in starts])
    # The places of the items are noted elsewhere, so that a comment makes up for what was left out.
    spare = stop - start - len(changed)
    if 0 < spare < 1 << 16 and changed[-22:-18] == b"PK\5\6":
        changed = changed[:-2] + spare.to_bytes(2, "little") + bytes(spare)
    return data[:start] + changed + data[stop:]


def _ends(data: bytes) -> list[int]:
    """Give the bytes after the end of each archive, and the start of the next one where there is padding between."""
    found, at = [], data.find(b"PK\5\6")
    while at >= 0:
        found.append(at + 22)
        start = data.find(b"PK\3\4", at)
        if start >= 0:
            found.append(start)
        at = data.find(b"PK\5\6", at + 4)
    return sorted(set(found))


def _change_member(entries: list[Entry], rng: Random, others: Sequence[bytes], inner: Inner) -> None:
    """Change what a member holds, honestly declared: the pickle more often than the rest."""
    if not entries:
        return
    pickled = [at for at, entry in enumerate(entries) if entry.name.endswith((b".pkl", b".npy", b".json"))]
    at = rng.choice(pickled) if pickled and rng.random() < 0.8 else rng.randrange(len(entries))
    entry = entries[at]
    donors = [one.data for other in others if other.startswith(b"PK\3\4") for one in _sound(other)]
    data = inner(entry.data, rng, [donor for donor in donors if donor[:1] == entry.data[:1]])
    packed = deflate(data) if entry.packed is not None else None
    entries[at] = dataclasses.replace(entry, data=data, packed=packed)


def _sound(data: bytes) -> tuple[Entry, ...]:
    try:
        return _entries(data)
    except UNSOUND:
        return ()


def _fields(rng: Random, names: Sequence[str], entry: Entry | None) -> dict[str, int | bytes]:
    """Draw a field of a header and a lie."""
    name = rng.choice(names)
    if name == "signature":
        return {name: rng.choice((b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\7\x08", b"\0\0\0\0"))}
    value = near(rng, len(entry.data)) if entry is not None and name in ("stored", "size") else number(rng)
    if name == "method":
        value = rng.choice((0, 8, 8, 9, 12, 14, 99))
    if name == "flags":
        value = rng.choice((1, 2, 8, 8, 64, 0x800, 0x2000, 0xFFFF))
    return {name: value % (1 << (32 if name in _LONG else 16))}


def _lie_once(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    if entries:
        at = rng.randrange(len(entries))
        entry = entries[at]
        if rng.random() < 0.5:
            entries[at] = dataclasses.replace(entry, local={**entry.local, **_fields(rng, LOCAL, entry)})
        else:
            entries[at] = dataclasses.replace(entry, central={**entry.central, **_fields(rng, CENTRAL, entry)})


def _lie_twice(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    """Lie in both headers alike."""
    if entries:
        at = rng.randrange(len(entries))
        entry = entries[at]
        lie = _fields(rng, [name for name in LOCAL if name in CENTRAL and "length" not in name], entry)
        entries[at] = dataclasses.replace(entry, local={**entry.local, **lie}, central={**entry.central, **lie})


def _lie_at_the_end(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    name, wide = rng.choice((("end", END), ("end", END), ("end64", END64), ("locator", LOCATOR)))
    chosen = rng.choice(wide[1:])
    narrow = {"end": 32 if chosen in ("size", "offset") else 16, "end64": 16 if chosen in ("made_by", "needed") else 32}
    ends[name] = {chosen: number(rng) % (1 << narrow.get(name, 32))}


def _shuffle(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    rng.shuffle(entries)


def _repeat(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    if entries:
        entry = rng.choice(entries)
        name = rng.choice((entry.name, entry.name.upper(), entry.name + b"\0", entry.name + b"x"))
        entries.insert(rng.randrange(len(entries) + 1), dataclasses.replace(entry, name=name))


def _leave_out(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    if entries:
        del entries[rng.randrange(len(entries))]


def _rename(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    if not entries:
        return
    at = rng.randrange(len(entries))
    folder, _, last = entries[at].name.rpartition(b"/")
    odd = text(rng).encode("utf-8", "surrogatepass")
    name = rng.choice((odd, folder + b"/" + odd, odd + b"/" + last, entries[at].name + odd, rng.choice(entries).name))
    match rng.randrange(4):
        case 0:
            lie = {"name": name}
            entries[at] = dataclasses.replace(entries[at], central={**entries[at].central, **lie})
        case 1:
            entries[at] = dataclasses.replace(entries[at], local={**entries[at].local, "name": name})
        case _:
            entries[at] = dataclasses.replace(entries[at], name=name)


def _pack(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    """Compress a member, in full or cut short, or say that it is."""
    if entries:
        at = rng.randrange(len(entries))
        packed = deflate(entries[at].data)
        packed = rng.choice((packed, packed, packed[:-1], packed + b"\0", deflate(entries[at].data * 3), b"", b"\3\0"))
        entries[at] = deflated(entries[at].name, entries[at].data, packed)


def _put_between(entries: list[Entry], ends: dict[str, Fields], rng: Random) -> None:
    if entries:
        at = rng.randrange(len(entries))
        entry = entries[at]
        wide = struct.pack("<2H3Q", 1, 24, *(number(rng) % (1 << 64) for _ in range(3)))
        extra = rng.choice((wide, rng.randbytes(6), b"FB\4\0ZZZZ", b"up\x05\0\1abcd"))
        entries[at] = rng.choice(
            (
                dataclasses.replace(entry, tail=rng.randbytes(9)),
                dataclasses.replace(entry, local_extra=extra),
                dataclasses.replace(entry, central_extra=extra),
                dataclasses.replace(entry, central_extra=wide, central={**entry.central, "size": 0xFFFFFFFF}),
            )
        )


_CHANGES: tuple[Callable[[list[Entry], dict[str, Fields], Random], None], ...] = (
    *(_lie_once, _lie_once, _lie_once, _lie_twice, _lie_twice, _lie_at_the_end),
    *(_shuffle, _repeat, _leave_out, _rename, _rename, _pack, _put_between),
)
