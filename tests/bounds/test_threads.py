"""Several threads at work: what fails in one ends the run with one line, and so does an interrupt, at once."""

from __future__ import annotations

import os
import platform
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptfix.tensors import DType, TensorSpec
from tests.cli.running import ROOT, start_replacing
from tests.durability.refusing import NUMBERS

from .sparse import write_sparse

OLD = b"the old file"
NBYTES = 40 * 40_000_000


@pytest.fixture(params=["source.safetensors", "source.pth"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of 1.6 GB that takes no room."""
    path = tmp_path / str(request.param)
    write_sparse(path, {f"layer.{n}": TensorSpec((5000, 2000), DType.F32) for n in range(40)})
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "out.safetensors"


def assert_untouched(out: Path) -> None:
    assert out.read_bytes() == OLD
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def threads_of(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


@pytest.mark.parametrize("options", [(), ("--no-digest",)], ids=["digests", "bytes"])
def test_an_interrupt_in_a_large_copy(options: tuple[str, ...], source: Path, out: Path) -> None:
    moments = random.Random(1)
    most = 0
    for _ in range(3):
        process = start_replacing(source, out, OLD, "--no-fsync", *options)
        time.sleep(moments.uniform(0.02, 0.25))
        most = max(most, threads_of(process))
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
        took = time.monotonic() - start
        assert (process.returncode, stdout) == (130, "")
        assert stderr == "\ninterrupted; nothing was left half written\n"
        assert took < 1
        assert_untouched(out)
    assert most > min(2, len(os.sched_getaffinity(0)))


def test_a_source_that_shrinks_meanwhile(source: Path, out: Path) -> None:
    process = start_replacing(source, out, OLD)
    os.truncate(source, NBYTES // 20)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (3, 4) and stdout == ""  # what is seen first: the end of the file, or a wrong checksum
    assert stderr.startswith(f"error: {source}: ") and stderr.count("\n") == 1
    assert_untouched(out)


def half_the_length() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (NBYTES // 2, NBYTES // 2))


FULL = "error: {}: cannot write: no space left on device (free some space, or write to another disk)\n"
LONG = "error: {}: cannot write: file too large (the file system, or `ulimit -f`, allows no file of this size)\n"


@pytest.mark.skipif(platform.machine() not in NUMBERS, reason="the numbers of its calls are not listed")
@pytest.mark.parametrize("options", [(), ("--no-digest",)], ids=["digests", "bytes"])
@pytest.mark.parametrize("kind", ["full", "half"])
def test_a_disk_on_which_no_more_can_be_written(kind: str, options: tuple[str, ...], source: Path, out: Path) -> None:
    """Where nothing can be reserved, threads come upon it, each at its place."""
    refused = {"full": "fallocate=EOPNOTSUPP,pwrite64=ENOSPC", "half": "fallocate=EOPNOTSUPP"}
    out.write_bytes(OLD)
    command = ["-m", "tests.durability.refusing", refused[kind], "adapt", source, source, "-o", out, "--force"]
    found = subprocess.run(
        [sys.executable, *command, *options],
        cwd=ROOT,
        preexec_fn=half_the_length if kind == "half" else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (4, "")
    assert found.stderr == (FULL if kind == "full" else LONG).format(out)
    assert_untouched(out)
