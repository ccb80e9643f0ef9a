"""Threads that work through a list beside the one that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType


def processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Stopped(Exception):
    """Ends the work of a thread, because another one failed or the user asks to end."""


class Workers:
    """Runs jobs in `number` threads until the block ends, which waits for them; with none, at the block's end.

    A job that fails stops the others at their next `check`, and is raised at the end of the block.
    """

    def __init__(self, jobs: Iterable[Callable[[], None]], number: int) -> None:
        self._jobs: Iterator[Callable[[], None]] = iter(list(jobs))
        self._lock = threading.Lock()
        self._stop = False
        self._failed: BaseException | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]

    def check(self) -> None:
        """Raise Stopped where the work is to end."""
        if self._stop:
            raise Stopped

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._threads:
                self._work()
            elif error is None:
                for thread in self._threads:
                    thread.join()
        finally:
            self._stop = True
            for thread in self._threads:
                thread.join()
        if error is None and self._failed is not None:
            raise self._failed

    def _work(self) -> None:
        try:
            while not self._stop:
                with self._lock:
                    job = next(self._jobs, None)
                if job is None:
                    return
                job()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  raised at the end of the block
            self._failed = self._failed or error
            self._stop = True
