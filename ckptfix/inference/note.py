"""What is said of an answer beside its links."""

from __future__ import annotations

from msgspec import Struct


class Note(Struct, frozen=True):
    """A sentence for the user, and the keys that need no other."""

    text: str
    keys: frozenset[str] = frozenset()
