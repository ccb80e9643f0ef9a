"""Changes of bytes that mean nothing in particular."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.fuzz.mutate.numbers import number


def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Flip, overwrite, cut, insert, repeat, or join with another file."""
    if not data:
        return rng.randbytes(rng.randrange(40))
    at = rng.randrange(len(data))
    length = rng.choice((1, 2, 4, 8, 16, 100))
    match rng.randrange(8):
        case 0:
            return _flip(data, rng)
        case 1:
            return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[at + 1 :]
        case 2:
            return write_number(data, rng, at)
        case 3:
            return data[:at]
        case 4:
            return data[:at] + data[at + length :]
        case 5:
            return data[:at] + rng.randbytes(length) + data[at:]
        case 6:
            return data[:at] + data[at : at + length] * rng.choice((2, 3, 50)) + data[at + length :]
        case _:
            other = rng.choice(others) if others else data
            return data[:at] + other[rng.randrange(len(other) + 1) :]


def write_number(data: bytes, rng: Random, at: int) -> bytes:
    """Overwrite 1, 2, 4 or 8 bytes with a number, in either byte order."""
    width = rng.choice((1, 2, 4, 8))
    written = (number(rng) % (1 << (8 * width))).to_bytes(width, rng.choice(("little", "little", "big")))
    return data[:at] + written + data[at + width :]


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)
