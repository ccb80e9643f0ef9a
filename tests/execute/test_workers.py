"""Threads beside the one that started them: none outlives the block, whatever ends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import pytest

from ckptfix.execute.workers import Workers


def _interrupt(*seconds: float) -> None:
    for moment in seconds:
        threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize("interrupts", [(0.1,), (0.1, 0.2, 0.25)], ids=["once", "again and again"])
def test_an_interrupt_waits_for_the_threads(interrupts: tuple[float, ...]) -> None:
    ended: list[float] = []

    def work(seconds: float) -> None:
        time.sleep(seconds)
        ended.append(seconds)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    _interrupt(*interrupts)
    with pytest.raises(KeyboardInterrupt):
        Workers([partial(work, 0.4), partial(work, 0.5), partial(work, 9.0)], 2).run()
    signal.signal(signal.SIGINT, before)
    assert sorted(ended) == [0.4, 0.5]


def test_the_first_failure_is_raised_and_ends_the_others() -> None:
    begun = threading.Event()

    def fail() -> None:
        begun.wait()
        raise ValueError("no")

    def work() -> None:
        begun.set()
        while True:
            workers.check()
            time.sleep(0.001)

    workers = Workers([work, fail], 2)
    with pytest.raises(ValueError, match="no"):
        workers.run()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_all_jobs_are_done(number: int) -> None:
    done: list[int] = []
    Workers([partial(done.append, job) for job in range(20)], number).run()
    assert sorted(done) == [*range(20)]


def test_a_thread_that_cannot_start_ends_those_that_have(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start
    done: list[int] = []

    def work() -> None:
        time.sleep(0.2)
        done.append(1)

    def start(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        real(thread)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        Workers([work] * 4, 2).run()
    assert done == [1]
