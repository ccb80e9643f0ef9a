"""Write how many there are of something."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Write a number and its noun, whose plural takes an s: `1 tensor`, `2 tensors`, `1,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
