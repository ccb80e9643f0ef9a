"""Change one file so that most of it stays sound: each format's own parts are moved, doubled, renamed and made to lie.

`mutate` finds out what a file or a member of one is, and what is inside a container is changed as what it is in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.mutate import arrays, headers, legacy, pickles, raw, tars, zips

Mutator = Callable[[bytes, Random, Sequence[bytes]], bytes]

_RAW = 0.15
"""How often the bytes are changed without a thought of what they mean."""


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change a file once or a few times. `others` are files of the same corpus, to take parts from."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = raw.change if rng.random() < _RAW else _mutator_of(data)
        try:
            data = change(data, rng, others)
        except Unsound:
            data = raw.change(data, rng, others)
    return data


# What the standard library's own parsers raise where an earlier change has broken what they read.
Unsound = (ValueError, KeyError, IndexError, EOFError, OSError, *zips.UNSOUND, *pickles.UNSOUND, *tars.UNSOUND)


def _mutator_of(data: bytes) -> Mutator:
    """Tell by its first bytes what a file is."""
    if data.startswith(b"PK\3\4"):
        return zips.changer(mutate)
    if data.startswith(b"{"):
        return headers.change_json
    if data[8:9] == b"{":
        return headers.change_safetensors
    if data[257:262] == b"ustar":
        return tars.changer(mutate)
    if data.startswith(b"\x93NUMPY"):
        return arrays.changer(mutate)
    if legacy.begins(data):
        return legacy.change
    if data.startswith(b"\x80"):
        return pickles.change
    return raw.change
