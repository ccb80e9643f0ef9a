"""BLAKE3 digests of tensors and headers, as lower-case hex of 64 characters, and the checksum of zip archives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blake3 import blake3

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
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hash_chunks([text.encode("ascii")])


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """Continue a CRC-32: by ISA-L, many times as fast as zlib's own."""
    from isal import isal_zlib

    return isal_zlib.crc32(data, before)
