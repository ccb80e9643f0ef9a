"""A signal before the work and after it: status 130 or that of the work, never a traceback."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.running import FIXTURES, ROOT
from tests.trust import record

from .soak import SOAK

TRIES = 60 if SOAK else 5
ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
INTERRUPTED = "\ninterrupted; nothing was left half written\n"


def start(*args: object, cwd: Path, before: Callable[[], object] = lambda: None) -> subprocess.Popen[str]:
    """Start a command of which a shell ignores no signal; `before` runs in the child."""

    def prepare() -> None:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_DFL)
        before()

    return subprocess.Popen(
        [sys.executable, "-m", "ckptfix", *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def wait_for_own_handlers(process: subprocess.Popen[str]) -> None:
    """Wait until the process catches SIGTERM, which the interpreter by itself does not; see proc(5)."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split(maxsplit=1)
        if status and int(status[0], 16) >> (signal.SIGTERM - 1) & 1:
            return


@pytest.mark.parametrize("sent", ENDINGS)
def test_a_signal_while_it_starts(sent: signal.Signals, tmp_path: Path) -> None:
    moments = random.Random(sent)
    seen: Counter[str] = Counter()
    for turn in range(TRIES):
        process = start("inspect", FIXTURES / "zip.pth", cwd=tmp_path)
        wait_for_own_handlers(process)
        time.sleep(moments.uniform(0, 0.2) if turn % 2 else moments.uniform(0, 0.02))
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 130), stderr
        assert stderr in (("", INTERRUPTED) if process.returncode else ("",))
        assert stdout or process.returncode
        seen["interrupted" if process.returncode else "ended before"] += 1
    assert seen["interrupted"], seen
    record(f"early-signals-{sent.name}", **{word.replace(" ", "_"): number for word, number in seen.items()})


@pytest.mark.parametrize("sent", ENDINGS)
def test_a_signal_after_the_answer(sent: signal.Signals, tmp_path: Path) -> None:
    """It cannot take the status back: what is written is written."""
    statuses: Counter[int] = Counter()
    for turn in range(TRIES):
        out = tmp_path / f"out{turn}.pth"
        process = start("adapt", FIXTURES / "zip.pth", FIXTURES / "zip.pth", "-o", out, cwd=tmp_path)
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("wrote"):
            assert line, "it ended before its answer"
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
        assert stdout == "" and stderr in ("", INTERRUPTED)
        assert out.exists()
        statuses[process.returncode] += 1
    assert statuses.keys() <= {0, 130}
    record(f"late-signals-{sent.name}", **{f"status_{status}": number for status, number in statuses.items()})


@pytest.mark.parametrize("sent", ENDINGS)
def test_a_signal_that_the_caller_ignores_is_ignored(sent: signal.Signals, tmp_path: Path) -> None:
    """`nohup ckptfix adapt ... &` outlives its terminal."""
    process = start("inspect", FIXTURES / "zip.pth", cwd=tmp_path, before=lambda: signal.signal(sent, signal.SIG_IGN))
    while process.poll() is None:
        process.send_signal(sent)
        time.sleep(0.005)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and stdout and stderr == ""
