"""How slow this machine is just now: bounds in seconds of a processor's time mean those of a common one."""

from __future__ import annotations

from time import process_time

_COMMON = 0.05
"""Seconds that the loop takes on a processor of 3 GHz that does nothing else."""


def slowness() -> float:
    """Give how many times as long as on a common processor a loop takes here; 1 at least."""
    least = min(_loop() for _ in range(3))
    return max(1.0, least / _COMMON)


def _loop() -> float:
    start = process_time()
    sum(number * number for number in range(1_000_000))
    return process_time() - start
