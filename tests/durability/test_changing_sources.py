"""A source that changes or shrinks while it is read is an error, and the output stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptfix
from ckptfix import adapt
from ckptfix.errors import AccessFailed, ReadFailed, RefusedContent
from tests.trust import record

OLD = b"the old file"
NAMES = ["source.pth", "source.safetensors"]


def save(path: Path, value: float = 0.0) -> None:
    """Write 48 MiB: its numbers are all `value`."""
    tensors = {f"layer.{n}": torch.full((1 << 20,), value) for n in range(12)}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def adapt_while(change: Callable[[Path], None], source: Path, out: Path) -> None:
    """Adapt, and let a thread change the source when a quarter of its tensors is read."""
    begun, changed = threading.Event(), threading.Event()

    def work() -> None:
        begun.wait(30)
        change(source)
        changed.set()

    def wait(done: int, total: int) -> None:
        if done > total // 4:
            begun.set()
            assert changed.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        adapt(source, source, out, existing="replace", progress=wait)
    finally:
        begun.set()
        thread.join()


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\1" * 64)


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 4096)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [overwrite, shrink, empty, grow])
def test_a_change_while_tensors_are_read(change: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    source, folder = tmp_path / name, tmp_path / "out"
    save(source)
    folder.mkdir()
    (folder / "out.pth").write_bytes(OLD)
    # What is read first decides which is seen: the end of the file, the checksum, the time of change.
    with pytest.raises((AccessFailed, RefusedContent)) as caught:
        adapt_while(change, source, folder / "out.pth")
    assert str(caught.value).startswith(f"{source}: ")
    assert [path.name for path in folder.iterdir()] == ["out.pth"]
    assert (folder / "out.pth").read_bytes() == OLD


KEEP_WRITING = """
import sys, time
from pathlib import Path
path, *others = map(Path, sys.argv[1:])
states = [other.read_bytes() for other in others]
print("writing", flush=True)
while True:
    for state in states:
        with path.open("r+b", buffering=0) as file:
            for start in range(0, len(state), 1 << 20):
                file.write(state[start : start + (1 << 20)])
        time.sleep(0.05)
"""
"""In calls of a mebibyte, as programs that copy make them: the time of change is that of the last call's beginning."""


@pytest.mark.parametrize("name", NAMES)
def test_a_writer_that_never_rests(name: str, tmp_path: Path) -> None:
    """Each try ends whole or in an error: what is written is one state of the source, never parts of two."""
    source, out = tmp_path / name, tmp_path / "out.safetensors"
    states = [tmp_path / f"{value}{source.suffix}" for value in (1, 2)]
    for value, path in enumerate(states):
        save(path, float(value))
    save(source)
    writer = subprocess.Popen([sys.executable, "-c", KEEP_WRITING, source, *states], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    outcomes = {"whole": 0, "error": 0}
    try:
        for _ in range(20):
            try:
                adapt(source, source, out, existing="replace")
            except (AccessFailed, RefusedContent):
                outcomes["error"] += 1
            else:
                outcomes["whole"] += 1
                assert len({float(number) for tensor in load_file(out).values() for number in tensor[::4096]}) == 1
    finally:
        writer.kill()
        writer.communicate(timeout=30)
    assert outcomes["error"] > 0, outcomes
    record(f"changing-{name}", **outcomes)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_that_is_replaced_after_it_was_opened(name: str, tmp_path: Path) -> None:
    """Its header is of one file, its bytes would be of another of the same layout: nothing else would tell."""
    source, other = tmp_path / name, tmp_path / f"other{Path(name).suffix}"
    save(source, 1.0)
    save(other, 2.0)
    opened = ckptfix.open(source)
    other.replace(source)
    with pytest.raises(ReadFailed, match="changed since its header was read"):
        adapt(opened, opened.path, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
    adapt(source, source, tmp_path / "out.pth")
    assert float(torch.load(tmp_path / "out.pth")["layer.0"][0]) == 2.0
