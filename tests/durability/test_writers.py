"""Runs that write the same output, and what killed ones leave."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ckptfix import adapt
from ckptfix.errors import OutputExists, WriteFailed
from ckptfix.execute.atomic import new_file, write_whole
from ckptfix.execute.temporary import sweep

ROOT = Path(__file__).parents[2]

WRITE = """
import sys, time
from pathlib import Path
from ckptfix.execute.atomic import new_file
with new_file(Path(sys.argv[1]), replace=True) as file:
    file.write(0, b"half of the other run's")
    print("writing", flush=True)
    sys.stdin.read()
"""


def strays(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".ckptfix-*"))


@contextmanager
def another_run(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to write `out`, and ends when its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, out],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_second_writer_of_one_output_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    source = tmp_path / "source.pth"
    torch.save({"w": torch.ones(3)}, source)
    with another_run(out) as other:
        with pytest.raises(WriteFailed, match="another run is writing it") as caught:
            adapt(source, source, out)
        assert caught.value.exit_code == 4 and "wait until it has ended" in str(caught.value)
        other.communicate("", timeout=30)
        assert other.returncode == 0
    assert out.read_bytes() == b"half of the other run's"
    adapt(source, source, out, existing="replace")
    assert out.read_bytes() != b"half of the other run's"
    assert strays(tmp_path) == []


def test_a_second_writer_by_another_way_to_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with another_run(tmp_path / "folder" / "out.pth"), pytest.raises(WriteFailed, match="another run"):
        write_whole(tmp_path / "link" / "out.pth", b"mine", replace=True)


def test_a_living_run_s_file_is_not_swept_and_a_killed_one_s_is(tmp_path: Path) -> None:
    with another_run(tmp_path / "out.pth") as other:
        for _ in range(3):
            sweep(tmp_path)
            write_whole(tmp_path / "beside.json", b"{}", replace=True)
        assert len(strays(tmp_path)) == 1
        other.kill()
        other.wait(30)
        assert len(strays(tmp_path)) == 1
        write_whole(tmp_path / "beside.json", b"{}", replace=True)
        assert strays(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["beside.json"]


def test_a_killed_run_does_not_stop_the_next_to_the_same_output(tmp_path: Path) -> None:
    with another_run(tmp_path / "out.pth") as other:
        other.send_signal(signal.SIGKILL)
        other.wait(30)
    write_whole(tmp_path / "out.pth", b"mine", replace=False)
    assert (tmp_path / "out.pth").read_bytes() == b"mine" and strays(tmp_path) == []


def test_only_what_is_ours_is_swept(tmp_path: Path) -> None:
    kept = [".ckptfix-notes.tmp", ".ckptfix-0123456789ab.tmp.bak", "ckptfix-0123456789ab.tmp", ".ckptfix-XYZ.tmp"]
    for name in kept:
        (tmp_path / name).write_bytes(b"a user's")
    (tmp_path / ".ckptfix-0123456789aa.tmp").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / ".ckptfix-0123456789ac.tmp").symlink_to("elsewhere")
    (tmp_path / ".ckptfix-0123456789ab.tmp").write_bytes(b"a stray")
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*kept, "elsewhere", ".ckptfix-0123456789aa.tmp", ".ckptfix-0123456789ac.tmp"}
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_many_writers_of_one_output(tmp_path: Path) -> None:
    """Each ends whole or refused; the file is one writer's; runs beside them sweep all the time."""
    out, done = tmp_path / "out", threading.Event()
    outcomes: list[str] = []

    def write(number: int) -> None:
        for _ in range(20):
            try:
                with new_file(out, replace=True) as file:
                    for offset in range(64):
                        file.write(offset, bytes([number]))
                outcomes.append("written")
            except WriteFailed as error:
                outcomes.append(error.message)

    def keep_sweeping() -> None:
        while not done.is_set():
            sweep(tmp_path)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    sweeper = threading.Thread(target=keep_sweeping)
    for thread in (*writers, sweeper):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    sweeper.join()
    assert len(outcomes) == 80 and set(outcomes) <= {"written", "cannot write: another run is writing it"}
    assert outcomes.count("written") > 20
    data = out.read_bytes()
    assert len(data) == 64 and len(set(data)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_locks_nothing_is_swept_and_each_run_has_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)  # what a file system without locks answers
    with new_file(tmp_path / "out", replace=True) as first:
        first.write(0, b"first")
        with new_file(tmp_path / "out", replace=True) as second:
            assert len(strays(tmp_path)) == 2
            second.write(0, b"second")
        assert (tmp_path / "out").read_bytes() == b"second"
    assert (tmp_path / "out").read_bytes() == b"first" and strays(tmp_path) == []


def test_a_temporary_file_that_another_host_removes_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"the old file")
    with (
        pytest.raises(WriteFailed, match="removed while it was written"),
        new_file(out, replace=True) as file,
    ):
        file.write(0, b"half")
        (tmp_path / strays(tmp_path)[0]).unlink()
    assert out.read_bytes() == b"the old file" and strays(tmp_path) == []


@pytest.mark.parametrize("way", ["itself", "hard link", "symbolic link", "by a linked folder"])
def test_the_source_is_not_replaced_even_by_force(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    source = folder / "source.pth"
    torch.save({"w": torch.ones(3)}, source)
    before = source.read_bytes()
    out = source if way == "itself" else folder / "other.pth"
    if way == "hard link":
        out.hardlink_to(source)
    elif way == "symbolic link":
        out.symlink_to(source)
    elif way == "by a linked folder":
        (tmp_path / "linked").symlink_to(folder)
        out = tmp_path / "linked" / "source.pth"
    with pytest.raises(OutputExists, match="is the source itself"):
        adapt(source, source, out, existing="replace")
    assert source.read_bytes() == before


def test_a_linked_folder_and_a_link_as_output(tmp_path: Path) -> None:
    source, folder, elsewhere = tmp_path / "source.pth", tmp_path / "folder", tmp_path / "elsewhere"
    torch.save({"w": torch.ones(3)}, source)
    folder.mkdir()
    elsewhere.mkdir()
    (tmp_path / "linked").symlink_to(folder)
    adapt(source, source, tmp_path / "linked" / "out.pth")
    assert [path.name for path in folder.iterdir()] == ["out.pth"]
    (elsewhere / "precious.pth").write_bytes(b"precious")
    (folder / "link.pth").symlink_to(elsewhere / "precious.pth")
    adapt(source, source, folder / "link.pth", existing="replace")
    assert not (folder / "link.pth").is_symlink()
    assert [path.read_bytes() for path in elsewhere.iterdir()] == [b"precious"]


@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_a_replaced_file_s_mode_gives_way_to_the_umask_s(mode: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old")
    out.chmod(mode)
    before = os.umask(0o027)
    try:
        write_whole(out, b"new", replace=True)
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o640


def test_the_lock_is_given_up_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    for _ in range(50):
        with pytest.raises(ZeroDivisionError), new_file(tmp_path / "out", replace=True):
            raise ZeroDivisionError
    assert time.monotonic() - start < 5
