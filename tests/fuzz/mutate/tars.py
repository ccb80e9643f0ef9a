"""Tar archives: fields of headers, the order of members, and what is inside them.

Layout: POSIX.1-1988 (ustar); https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.mutate import pickles, raw
from tests.fuzz.mutate.numbers import near, text

UNSOUND = (tarfile.TarError,)

_BLOCK = 512
_FIELDS = ((0, 100), (100, 8), (108, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
_TYPES = b"0\x00123456789xgLKSV"

Member = tuple[bytes, bytes]
"""The header of a member, and its content."""


def changer(inner: Callable[[bytes, Random, Sequence[bytes]], bytes]) -> Callable[..., bytes]:
    """Make the mutator. `inner` changes a member that is one pickle."""

    def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        members = _members(data)
        at = rng.randrange(len(members))
        header, content = members[at]
        kind = rng.random()
        if kind < 0.55:
            content = _change_content(content, rng, inner)
            members[at] = _with_size(header, len(content)), content
        elif kind < 0.8:
            members[at] = _change_header(header, rng), content
        elif kind < 0.9:
            members.insert(rng.randrange(len(members) + 1), members[at])
        else:
            del members[at]
        end = bytes(rng.choice((0, _BLOCK, 2 * _BLOCK, 2 * _BLOCK)))
        return b"".join(head + body + bytes(-len(body) % _BLOCK) for head, body in members) + end

    return change


def _members(data: bytes) -> list[Member]:
    found, at = [], 0
    while at + _BLOCK <= len(data) and data[at] != 0:
        header = data[at : at + _BLOCK]
        size = int(header[124:135].strip(b" \0") or b"0", 8)
        found.append((header, data[at + _BLOCK : at + _BLOCK + size]))
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    if not found:
        raise tarfile.ReadError("no member")
    return found


def _change_content(content: bytes, rng: Random, inner: Callable[[bytes, Random, Sequence[bytes]], bytes]) -> bytes:
    """Change the first pickle of a member, a later one, or a number between them."""
    if rng.random() < 0.3:
        return inner(content, rng, ())
    starts = [at for at in range(len(content) - 1) if content[at : at + 2] == b"\x80\2"]
    if not starts or rng.random() < 0.3:
        return raw.write_number(content, rng, rng.randrange(len(content) or 1))
    start = rng.choice(starts)
    return content[:start] + pickles.change(content[start:], rng, [content])


def _change_header(header: bytes, rng: Random) -> bytes:
    start, length = rng.choice(_FIELDS)
    if start == 156:
        value = bytes([rng.choice(_TYPES)])
    elif length in (8, 12):
        size = near(rng, int(header[124:135].strip(b" \0") or b"0", 8))
        # Numbers too large for octal digits are written in base 256.
        value = b"%0*o\0" % (length - 1, size) if 0 <= size < 8 ** (length - 1) else b"\x80" + rng.randbytes(length - 1)
    else:
        value = text(rng).encode("utf-8", "surrogatepass")
    changed = header[:start] + value[:length].ljust(length, b"\0") + header[start + length :]
    return _sealed(changed) if rng.random() < 0.85 else changed


def _with_size(header: bytes, size: int) -> bytes:
    return _sealed(header[:124] + b"%011o\0" % size + header[136:])


def _sealed(header: bytes) -> bytes:
    """Write the right checksum."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]
