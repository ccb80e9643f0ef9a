"""How slow this machine is just now: bounds in seconds of a processor's time mean those of a common one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import process_time

_NOISE = 3
"""Times that others at work make something take longer: they share caches, and the memory's bandwidth. What is bounded
here would take tens of times as long if it were wrong."""
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


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that a block takes no more of a common processor's time, but for noise."""
    start = process_time()
    yield
    took = process_time() - start
    assert not is_over(took, seconds), f"it took {took:.2f} s"


def is_over(took: float, seconds: float) -> bool:
    """Tell whether something took more of a processor's time than a common one needs, but for noise."""
    return took > seconds and took > _NOISE * seconds * slowness()
