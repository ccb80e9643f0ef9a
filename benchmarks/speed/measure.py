"""Run whole commands, as a user would: how long they take, and what they hold in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from threading import Timer

LIMIT = 600
"""Seconds after which a command is killed."""
FORKED = 0x40
"""The flag PF_FORKNOEXEC of linux/sched.h: forked, and no program started."""
PAUSE = 0.002
"""Seconds between two looks at the memory."""
FEW = 3
"""Runs of a command that takes more than TOO_SLOW times what the first one does, and more than LONG seconds."""
TOO_SLOW = 5
LONG = 1.0


class CommandFailed(Exception):
    """The command ended with another status than 0; the message is its last line."""


@dataclass(frozen=True)
class Run:
    """One run: seconds by the clock, and of the processors in all processes."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Lane:
    """A command in a race; `check` looks at its output and says what is wrong with it, `reset` removes it."""

    name: str
    command: Sequence[str]
    check: Callable[[], str | None]
    reset: Callable[[], None]


@dataclass(frozen=True)
class Result:
    """What became of a lane; `memory` is the peak in bytes. Without runs, `failure` says why."""

    name: str
    runs: tuple[Run, ...] = ()
    memory: int = 0
    failure: str | None = None

    @property
    def seconds(self) -> float:
        """Give the median by the clock."""
        return median(run.seconds for run in self.runs)

    @property
    def cpu(self) -> float:
        """Give the median of the processors' time."""
        return median(run.cpu for run in self.runs)


def race(lanes: Sequence[Lane], runs: int) -> list[Result]:
    """Run the lanes in turn, A B C A B C; before that each once for its memory and its output, not timed."""
    results = {lane.name: _first(lane) for lane in lanes}
    sound = [lane for lane in lanes if results[lane.name].failure is None]
    timed: dict[str, list[Run]] = {lane.name: [] for lane in sound}
    for turn in range(runs):
        for lane in sound:
            if turn < FEW or not _is_slow(timed[lane.name], timed[sound[0].name]):
                timed[lane.name].append(run(lane.command))
                lane.reset()
    return [Result(name, tuple(timed.get(name, ())), result.memory, result.failure) for name, result in results.items()]


def _is_slow(own: Sequence[Run], first: Sequence[Run]) -> bool:
    return median(run.seconds for run in own) > max(LONG, TOO_SLOW * median(run.seconds for run in first))


def _first(lane: Lane) -> Result:
    try:
        memory = peak_memory(lane.command)
        return Result(lane.name, memory=memory, failure=lane.check())
    except CommandFailed as error:
        return Result(lane.name, failure=str(error))
    finally:
        lane.reset()


def run(command: Sequence[str]) -> Run:
    """Run a command to its end. Raises CommandFailed."""
    return _watch(command, lambda _: None)


def peak_memory(command: Sequence[str]) -> int:
    """Run a command, and give the most that its processes held together, of their own and shared, in bytes."""
    peak = 0

    def watch(process: int) -> None:
        nonlocal peak
        while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            peak = max(peak, sum(map(_held, _family(process))))
            time.sleep(PAUSE)

    _watch(command, watch)
    return peak


def _watch(command: Sequence[str], watch: Callable[[int], None]) -> Run:
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603  the commands of rows.py
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        kill = partial(os.killpg, process.pid, signal.SIGKILL)
        killer = Timer(LIMIT, kill)
        killer.start()
        try:
            watch(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # an interrupt
            kill()
            raise
        finally:
            killer.cancel()
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise CommandFailed(_reason(process.returncode, said.read().decode(errors="replace")))
    return Run(seconds, usage.ru_utime + usage.ru_stime)


def _reason(status: int, said: str) -> str:
    lines = [line.strip(" │") for line in said.splitlines() if line.strip(" │╭╮╰╯─")]
    last = re.sub(r"/\S*/", "", lines[-1]) if lines else ""  # names of files, without folders
    return f"exit status {status}" + (f": {last}" if last else "")


def _family(process: int) -> Iterator[int]:
    yield process
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _held(process: int) -> int:
    """Read what a process holds; a child that has not started its program yet still shares all with its parent."""
    with suppress(OSError):
        flags = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[6])
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        if not flags & FORKED:
            return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return 0
