"""An interrupt at any moment of the writing: status 130, one line, the old file or the new one, nothing beside it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cli.running import start_replacing
from tests.trust import record

from .soak import SOAK

ROOT = Path(__file__).parents[2]
OLD = b"the old file"
TRIES = 20 if SOAK else 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 256 MiB: half a second of writing."""
    path = tmp_path_factory.mktemp("source") / "source.pth"
    torch.save({f"layer.{n}": torch.zeros(1 << 22) for n in range(16)}, path)
    return path


@pytest.fixture(autouse=True)
def _hang_up_is_not_ignored() -> Iterator[None]:
    """What starts the tests may ignore it, as nohup does, and so would the commands that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_at_a_random_moment(sent: signal.Signals, source: Path, tmp_path: Path) -> None:
    out, moments = tmp_path / "out.pth", random.Random(sent)
    seen: Counter[str] = Counter()
    while seen["interrupted"] < TRIES and seen.total() < 5 * TRIES:
        process = start_replacing(source, out, OLD)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
        assert [path.name for path in tmp_path.iterdir()] == [out.name]
        if process.returncode == 130:
            seen["interrupted"] += 1
            # click begins with a line end, to get off the line of a terminal's ^C.
            assert (stdout, stderr) == ("", "\ninterrupted; nothing was left half written\n")
        else:  # it had ended
            seen["ended before"] += 1
            assert process.returncode == 0, stderr
        # A signal may come after the rename, too.
        assert out.stat().st_size == len(OLD) or set(torch.load(out)) == {f"layer.{n}" for n in range(16)}
    assert seen["interrupted"] == TRIES, seen
    record(f"interrupts-{sent.name}", **{word.replace(" ", "_"): number for word, number in seen.items()})


def test_many_signals_at_once(source: Path, tmp_path: Path) -> None:
    """A second one may stop the cleaning up, never tear the output; the next run removes what is left."""
    out = tmp_path / "out.pth"
    process = start_replacing(source, out, OLD)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    stdout, _ = process.communicate(timeout=60)
    assert stdout == "" and process.returncode == 130
    assert out.read_bytes() == OLD
    subprocess.run(
        [sys.executable, "-m", "ckptfix", "adapt", source, source, "-o", out, "--force"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_closed_pipe_does_not_stop_the_writing(source: Path, tmp_path: Path) -> None:
    process = start_replacing(source, tmp_path / "out.pth", OLD)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(60) == 0
    process.stderr.close()
    assert len(torch.load(tmp_path / "out.pth")) == 16
    assert [path.name for path in tmp_path.iterdir()] == ["out.pth"]
