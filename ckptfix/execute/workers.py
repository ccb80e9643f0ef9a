"""Threads that work through a list beside the one that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType

MEMORY = 256 << 20
"""Bytes that writing takes at most, as a rule."""
_BASE = 96 << 20
"""What the interpreter, numpy and a header of many thousand tensors take."""
_THREAD = 40 << 20
"""What one thread takes that turns a large tensor around."""
_LEAST, _TENSOR = 48_000_000, 2500
"""What any run may take, and for each tensor: its entries in two headers, in the plan and in the receipt."""
MOST_THREADS = 4
"""More of them wait for one another at the files that they write."""


def threads_within(memory: int) -> int:
    """Choose how many threads write: as many as there are processors and memory for, one at least."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, MOST_THREADS, (memory - _BASE) // _THREAD))


def least_memory(tensors: int) -> int:
    """Give the bytes that writing so many tensors may take by one thread, which no bound can be below."""
    return _LEAST + _TENSOR * tensors


class Stopped(Exception):
    """Ends the work of a thread, because another one failed or the user asks to end."""


class Workers:
    """Runs jobs in `number` threads until the block ends, which waits for them; with none, at the block's end.

    A job that fails stops the others at their next `check`, and is raised at the end of the block.
    """

    def __init__(self, jobs: Sequence[Callable[[], None]], number: int) -> None:
        self._jobs: Iterator[Callable[[], None]] = iter(jobs)
        self._lock = threading.Lock()
        self._stop = False
        self._failed: BaseException | None = None
        self._running = 0
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(min(number, len(jobs)))]

    def run(self) -> None:
        """Do all jobs, and nothing beside."""
        with self:
            pass

    def check(self) -> None:
        """Raise Stopped where the work is to end."""
        if self._stop:
            raise Stopped

    def __enter__(self) -> Workers:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._threads:
                self._work()
            elif error is None:
                # Not by `join`, which, interrupted before Python 3.13, takes a thread that runs for one that ended.
                for _ in self._threads:
                    self._ended.get()
        finally:
            self._end()
        if error is None and self._failed is not None:
            raise self._failed

    def _end(self) -> None:
        """Stop, and wait whatever signals say: a thread must not outlive the files that it writes.

        One that does not count as running yet will find that it is to stop before it takes a job.
        """
        self._stop = True
        while self._running:
            with suppress(KeyboardInterrupt):
                self._ended.get()

    def _run(self) -> None:
        with self._lock:
            self._running += 1
        try:
            self._work()
        finally:
            with self._lock:
                self._running -= 1
            self._ended.put(None)

    def _work(self) -> None:
        try:
            while not self._stop:
                with self._lock:
                    job = next(self._jobs, None)
                if job is None:
                    return
                job()
        except BaseException as error:  # noqa: BLE001  raised at the end of the block
            if not (self._stop and isinstance(error, Stopped)):
                self._failed = self._failed or error
            self._stop = True
