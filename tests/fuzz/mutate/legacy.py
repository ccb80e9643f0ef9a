"""Files of torch before 1.6: five pickles, then counts and storages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

from ckptfix.formats.legacy.magic import is_legacy
from tests.fuzz.mutate import pickles, raw

_PICKLES = 5


def begins(data: bytes) -> bool:
    """Whether the file is one."""
    return is_legacy(data[:64])


def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change one of the pickles, their order, or the counts."""
    parts, rest = split(data, _PICKLES)
    kind = rng.random()
    if kind < 0.6:
        at = rng.choice((3, 3, 3, 3, 4, 4, 0, 1, 2)) % len(parts)
        donors = [b"".join(split(other, _PICKLES)[0][3:4]) for other in others if begins(other)]
        parts[at] = pickles.change(parts[at], rng, donors)
    elif kind < 0.7:
        one, two = rng.randrange(len(parts)), rng.randrange(len(parts))
        parts[one] = parts[two] if rng.random() < 0.5 else b""
    elif kind < 0.9 and len(rest) >= 8:
        # The first count, or a word further on: a count or elements.
        rest = raw.write_number(rest, rng, 0 if rng.random() < 0.4 else rng.randrange(0, len(rest), 4))
    else:
        rest = raw.change(rest, rng, [split(other, _PICKLES)[1] for other in others if begins(other)])
    return b"".join(parts) + rest


def split(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Give the first `count` pickles, and what comes after them."""
    parts = []
    for _ in range(count):
        ops, rest = pickles.take_apart(data)
        parts.append(pickles.join(ops))
        data = rest
    return parts, data


UNSOUND = (struct.error,)
