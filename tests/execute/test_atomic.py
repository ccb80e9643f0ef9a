"""An output path holds the whole new file or the whole old one."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ckptfix import adapt
from ckptfix.errors import CorruptTensor, OutputExists, ReadFailed
from ckptfix.execute import atomic, rename
from ckptfix.execute.atomic import new_file, write_whole
from ckptfix.execute.rename import rename_new

from .making import BOTH, convert

TENSORS = {"a": torch.arange(100.0), "b": torch.arange(7)}


@pytest.mark.parametrize("name", BOTH)
def test_equal_inputs_give_equal_bytes(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "one" / name, tmp_path / "another place" / name.replace("out", "other")
    for out, clock in ((first, 0), (second, 10**9)):
        out.parent.mkdir()
        torch.save(TENSORS, out.with_name("source.pth"))
        os.utime(out.with_name("source.pth"), (clock, clock))
        adapt(out.with_name("source.pth"), out.with_name("source.pth"), out)
    assert first.read_bytes() == second.read_bytes()


def test_no_path_and_no_time_is_in_the_file(tmp_path: Path) -> None:
    for name in BOTH:
        out = tmp_path / "secret-folder-name" / name
        out.parent.mkdir(exist_ok=True)
        convert(TENSORS, out)
        assert b"secret-folder" not in out.read_bytes() and b"source.pth" not in out.read_bytes()
    with zipfile.ZipFile(out) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_follows_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        convert(TENSORS, tmp_path / "out.pth")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.pth").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("name", BOTH)
def test_a_source_that_turns_out_corrupt_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    source, folder = tmp_path / "source.pth", tmp_path / "out"
    torch.save(TENSORS, source)
    with zipfile.ZipFile(source) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    data = bytearray(source.read_bytes())
    position = data.index(TENSORS["a"].numpy().tobytes(), info.header_offset)
    data[position + 40] ^= 1
    source.write_bytes(data)
    folder.mkdir()
    out = folder / name
    out.write_bytes(b"the old file")
    with pytest.raises(CorruptTensor, match="CRC-32"):
        adapt(source, source, out, existing="replace")
    assert [path.name for path in folder.iterdir()] == [name]
    assert out.read_bytes() == b"the old file"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.pth", tmp_path / "link.pth"
    real.write_bytes(b"precious")
    link.symlink_to(real)
    with pytest.raises(OutputExists):
        convert(TENSORS, link)
    convert(TENSORS, link, existing="replace")
    assert not link.is_symlink() and real.read_bytes() == b"precious"
    dangling = tmp_path / "dangling.pth"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        convert(TENSORS, dangling)


def test_a_source_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    source, out = tmp_path / "source.pth", tmp_path / "out.pth"
    torch.save(TENSORS, source)

    def touch(done: int, total: int) -> None:
        os.utime(source, (1, 1))

    with pytest.raises(ReadFailed, match="changed while it was read") as caught:
        adapt(source, source, out, progress=touch)
    assert caught.value.exit_code == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.pth"]


def test_an_exception_removes_the_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "out", replace=False) as file:
        file.write(0, b"half")
        assert len(list(tmp_path.iterdir())) == 1
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputExists), new_file(out, replace=False) as file:
        file.write(0, b"mine")
        out.write_bytes(b"theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and out.read_bytes() == b"theirs"


def test_a_name_of_many_bytes(tmp_path: Path) -> None:
    name = "я" * 120 + ".pth"  # 244 bytes of the 255 that a name may have
    write_whole(tmp_path / name, b"x", replace=False)
    assert (tmp_path / name).read_bytes() == b"x"


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    convert({"large": torch.zeros(1 << 20)}, tmp_path / "out.pth", progress=lambda *step: seen.append(step))
    done, totals = zip(*seen, strict=True)
    assert set(totals) == {done[-1]} == {4 << 20}
    assert all(0 < after - before <= 1 << 20 for before, after in pairwise((0, *done)))


@pytest.mark.parametrize("existing", ["refuse", "replace"])
@pytest.mark.parametrize("name", BOTH)
def test_synced_renamed_and_the_folder_synced_in_that_order(
    name: str, existing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    write, fsync, replace, rename = os.pwrite, os.fsync, Path.replace, atomic.rename_new

    def name_of(fd: int) -> str:
        return Path(f"/proc/self/fd/{fd}").readlink().name.rpartition(".")[2]

    monkeypatch.setattr(os, "pwrite", lambda fd, *rest: calls.append(f"write {name_of(fd)}") or write(fd, *rest))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(f"sync {name_of(fd)}") or fsync(fd))
    monkeypatch.setattr(Path, "replace", lambda path, to: calls.append(f"rename to {to.name}") or replace(path, to))
    monkeypatch.setattr(atomic, "rename_new", lambda path, to: calls.append(f"rename to {to.name}") or rename(path, to))
    folder = tmp_path / "folder"
    folder.mkdir()
    convert(TENSORS, folder / name, existing=existing)
    assert calls[-3:] == ["sync tmp", f"rename to {name}", "sync folder"]
    assert set(calls[:-3]) == {"write tmp"}


@pytest.mark.parametrize("system", ["in one step", "asked before"])
def test_a_name_that_is_taken_is_not_given(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if system == "asked before":  # as over NFS
        monkeypatch.setattr(rename, "_renameat2", lambda: lambda path, new: errno.EINVAL)
    new, old = tmp_path / "new", tmp_path / "old"
    for path in (new, old):
        path.write_text(path.name)
    with pytest.raises(FileExistsError):
        rename_new(new, old)
    assert (new.read_text(), old.read_text()) == ("new", "old")
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "none", tmp_path / "free")
    rename_new(new, tmp_path / "free")
    assert not new.exists() and (tmp_path / "free").read_text() == "new"


def test_a_file_that_appears_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def appear(path: Path, new: Path) -> None:
        new.write_text("mine")
        rename_new(path, new)

    monkeypatch.setattr(atomic, "rename_new", appear)
    with pytest.raises(OutputExists, match="--force"):
        write_whole(out, b"new", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and out.read_text() == "mine"
