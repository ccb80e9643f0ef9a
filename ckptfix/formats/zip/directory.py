"""The central directory of a zip archive, checked against the local headers.

Layout: APPNOTE 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT). Sizes are the central
directory's, because torch leaves them 0 in the local headers; the data of an entry starts after the LOCAL name and
extra field, because torch pads that extra field (id `FB`) to align the data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from ckptfix.errors import LimitExceeded, MalformedFile, TruncatedFile
from ckptfix.formats.base import CHUNK, File, inflate

MAX_ENTRIES = 200_000
"""Entries of an archive; the largest published checkpoints hold some ten thousand tensors a file."""

MAX_DIRECTORY = 64 << 20
"""Bytes of the central directory."""

STORED, DEFLATED = 0, 8

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_SENTINEL = 0xFFFFFFFF
_STREAMED = 1 << 3  # sizes and CRC follow the data
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_FOLDER = 1 << 4  # the attribute of DOS
_UNICODE_PATH = 0x7075  # Info-ZIP's: APPNOTE 4.6.9


class Entry(NamedTuple):
    """One member. `header` is the byte of its local header, `offset` that of its data."""

    name: str
    header: int
    offset: int
    stored_nbytes: int
    nbytes: int
    crc32: int
    method: int

    def read(self, file: File, limit: int) -> bytes:
        """Read the decoded bytes, without testing the checksum. Raises LimitExceeded above `limit` bytes."""
        if self.nbytes > limit:
            raise LimitExceeded(f"{self.name} holds {self.nbytes} bytes, {limit} are allowed")
        stored = file.read(self.offset, self.stored_nbytes)
        return stored if self.method == STORED else b"".join(inflate([stored], self.nbytes))

    def crc_of(self, file: File, limit: int) -> int:
        """Compute the checksum without holding the bytes. Raises LimitExceeded for a deflated entry above `limit`."""
        if self.method != STORED:
            return zlib.crc32(self.read(file, limit))
        stops = range(0, self.stored_nbytes, CHUNK)
        packed = (file.read(self.offset + at, min(CHUNK, self.stored_nbytes - at)) for at in stops)
        crc = 0
        for chunk in packed:
            crc = zlib.crc32(chunk, crc)
        return crc

    def check(self, crc: int) -> None:
        """Raise MalformedFile where this is not the checksum that the archive keeps."""
        if crc != self.crc32:
            raise MalformedFile(
                f"{self.name} has CRC-32 {crc:08x}, the archive says {self.crc32:08x}",
                hint="the file is damaged: download or copy it again",
            )


def read_directory(file: File) -> dict[str, Entry]:
    """List the entries in the directory's order.

    Raises MalformedFile for duplicate names, names that readers cut or replace, encryption, compression other than
    deflate, local headers that say something else than the directory, and entries that overlap; TruncatedFile where
    the directory is missing.
    """
    count, offset, nbytes = _find_directory(file)
    entries: dict[str, Entry] = {}
    folded: set[bytes] = set()
    for entry in _read_central(file, file.read(offset, nbytes), offset):
        if entry.name in entries:
            raise MalformedFile(f"the archive has the entry {entry.name!r} twice")
        # torch looks records up without regard to case (miniz, `mz_zip_reader_locate_file`), Python with.
        if (plain := entry.name.encode().lower()) in folded:
            raise MalformedFile(f"the archive has the entry {entry.name!r} twice, but for capital letters")
        folded.add(plain)
        entries[entry.name] = entry
    if len(entries) != count:
        raise MalformedFile(f"the zip directory lists {len(entries)} entries and declares {count}")
    ordered = sorted(entries.values(), key=lambda entry: entry.header)
    for before, after in pairwise(ordered):
        if before.offset + before.stored_nbytes > after.header:
            raise MalformedFile(f"the entries {before.name!r} and {after.name!r} overlap")
    if ordered and ordered[-1].offset + ordered[-1].stored_nbytes > offset:
        raise MalformedFile(f"the entry {ordered[-1].name!r} runs into the zip directory")
    return entries


def iter_entries(file: File) -> Iterator[Entry]:
    """Give the entries as the directory lists them, each checked against its local header but not against others."""
    _, offset, nbytes = _find_directory(file)
    return _read_central(file, file.read(offset, nbytes), offset)


def _find_directory(file: File) -> tuple[int, int, int]:
    """Give the number of entries, and the offset and bytes of the central directory."""
    tail_start = max(file.size - _END.size - 0xFFFF, 0)
    tail = file.read(tail_start, file.size - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise TruncatedFile("has no zip directory at its end", hint="download or copy the file again")
    _, disk, start_disk, _, count, nbytes, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise MalformedFile("has bytes after the end of its zip directory")
    end = tail_start + at
    if at >= _END64_LOCATOR.size and tail[at - _END64_LOCATOR.size :].startswith(b"PK\6\7"):
        _, _, end64, _ = _END64_LOCATOR.unpack_from(tail, at - _END64_LOCATOR.size)
        if end64 + _END64.size > end:
            raise MalformedFile("the zip64 directory record lies outside the file")
        found = _END64.unpack(file.read(end64, _END64.size))
        if found[0] != b"PK\6\6":
            raise MalformedFile("the zip64 directory record is missing")
        for short, long, sentinel in ((count, found[7], 0xFFFF), (nbytes, found[8], _SENTINEL)):
            if short not in (long, sentinel):
                raise MalformedFile("the zip and zip64 directory records disagree")
        if offset not in (found[9], _SENTINEL):
            raise MalformedFile("the zip and zip64 directory records disagree")
        disk, start_disk, count, nbytes, offset, end = *found[4:6], *found[7:10], end64
    if disk or start_disk:
        raise MalformedFile("is one part of a zip archive of several")
    if offset + nbytes != end:
        raise MalformedFile(f"the zip directory lies at {offset} to {offset + nbytes}, its end record at {end}")
    if count > MAX_ENTRIES or nbytes > MAX_DIRECTORY:
        raise LimitExceeded(f"the zip directory has {count} entries in {nbytes} bytes")
    return count, offset, nbytes


def _read_central(file: File, directory: bytes, limit: int) -> Iterator[Entry]:
    at = 0
    while at < len(directory):
        if at + _CENTRAL.size > len(directory):
            raise MalformedFile("the zip directory ends inside an entry")
        fields = _CENTRAL.unpack_from(directory, at)
        signature, _, _, flags, method, _, _, crc32, stored, nbytes, name_len, extra_len, comment_len = fields[:13]
        external, header = fields[15:]
        if signature != b"PK\1\2":
            raise MalformedFile("the zip directory holds something other than entries")
        raw = directory[at + _CENTRAL.size : at + _CENTRAL.size + name_len]
        extra = directory[at + _CENTRAL.size + name_len : at + _CENTRAL.size + name_len + extra_len]
        at += _CENTRAL.size + name_len + extra_len + comment_len
        if at > len(directory):
            raise MalformedFile("the zip directory ends inside an entry")
        name = _decode(raw)
        if "\0" in name:
            raise MalformedFile(f"the entry {name!r} has a NUL in its name, where some readers end it")
        if extra and any(kind == _UNICODE_PATH for kind, _ in _extra_fields(extra)):
            raise MalformedFile(f"the entry {name!r} has a second name, in an extra field")
        if _SENTINEL in (nbytes, stored, header):
            nbytes, stored, header = _widen(name, extra, (nbytes, stored, header))
        if flags & _ENCRYPTED:
            raise MalformedFile(f"the entry {name!r} is encrypted")
        if method not in (STORED, DEFLATED):
            raise MalformedFile(f"the entry {name!r} uses compression method {method}", hint="only deflate is read")
        if nbytes and (external & _FOLDER or name.endswith("/")):
            # miniz, which torch uses, reads nothing of it and reports success: torch gives uninitialised memory.
            raise MalformedFile(f"the entry {name!r} is marked as a folder and has {nbytes} bytes")
        if method == STORED and stored != nbytes:
            raise MalformedFile(f"the entry {name!r} is stored in {stored} bytes and declares {nbytes}")
        start = _check_local(file, header, raw, (flags, method, crc32, stored, nbytes))
        if start + stored > limit:
            raise MalformedFile(f"the entry {name!r} runs past the zip directory")
        yield Entry(name, header, start, stored, nbytes, crc32, method)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")  # what zip means by bytes that are not UTF-8


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the extra fields with their ids."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        yield kind, extra[at + 4 : at + 4 + length]
        at += 4 + length


def _widen(name: str, extra: bytes, fields: tuple[int, ...]) -> list[int]:
    """Take the 64-bit values, from the extra field with id 1, of those fields that are saturated."""
    for kind, field in _extra_fields(extra):
        if kind == 1 and len(field) >= 8 * fields.count(_SENTINEL):
            values = struct.iter_unpack("<Q", field[: 8 * fields.count(_SENTINEL)])
            return [next(values)[0] if value == _SENTINEL else value for value in fields]
    raise MalformedFile(f"the entry {name!r} lacks its zip64 sizes")


def _check_local(file: File, header: int, name: bytes, central: tuple[int, int, int, int, int]) -> int:
    """Check that the local header repeats the directory. Give the byte where the data starts."""
    local = file.read(header, _LOCAL.size + len(name))
    signature, _, flags, method, _, _, *sizes, name_len, extra_len = _LOCAL.unpack_from(local)
    if signature != b"PK\3\4":
        raise MalformedFile(f"the entry {_decode(name)!r} has no local header at byte {header}")
    if local[_LOCAL.size :] != name or name_len != len(name):
        raise MalformedFile(f"the entry {_decode(name)!r} has another name in its local header")
    if (flags & _ENCRYPTED, method) != (0, central[1]):
        raise MalformedFile(f"the entry {_decode(name)!r} has another encoding in its local header")
    for have, want in zip(sizes, central[2:], strict=True):
        if have not in (want, _SENTINEL) and not (have == 0 and flags & _STREAMED):
            raise MalformedFile(f"the entry {_decode(name)!r} has another size or CRC-32 in its local header")
    return header + _LOCAL.size + len(name) + int(extra_len)
