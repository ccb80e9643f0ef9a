"""BLAKE3 digests of tensors and headers, as lower-case hex of 64 characters, and the checksum of zip archives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blake3 import blake3

_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_PIECE = 1024
"""Members of a mapping whose text is held at once."""

NO_DIGEST = "0" * 64
"""Stands in for a digest whose width must be known before its value is."""


@cache
def hasher() -> type[blake3]:
    """Give the class that hashes."""
    from blake3 import blake3

    return blake3


def hash_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Hash the chunks as one run of bytes."""
    found = hasher()()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def hash_text(text: str) -> str:
    """Hash a text as UTF-8."""
    return hash_chunks([text.encode("utf-8", "surrogatepass")])


def hash_document(document: object) -> str:
    """Hash a JSON document in its canonical form: sorted keys, no blanks, ASCII."""
    return hash_chunks(text.encode("ascii") for text in _canonical(document))


def _canonical(document: object) -> Iterator[str]:
    """Give the text in pieces: a long list or mapping of many tensors is held once, and its text never whole."""
    if isinstance(document, list):
        yield "["
        for number, part in enumerate(document):
            yield "," if number else ""
            yield from _canonical(part)
        yield "]"
    elif isinstance(document, dict) and len(document) > _PIECE:
        names = sorted(document)
        for start in range(0, len(names), _PIECE):
            yield "," if start else "{"
            yield _to_json({name: document[name] for name in names[start : start + _PIECE]})[1:-1]
        yield "}"
    else:
        yield _to_json(document)


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """Continue a CRC-32: by ISA-L, many times as fast as zlib's own."""
    from isal import isal_zlib

    return isal_zlib.crc32(data, before)
