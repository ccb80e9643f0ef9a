"""A full disk, a limit on files, a folder that refuses: a clean error, the old file whole, nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks.speed.disk import mounted
from ckptfix import adapt
from ckptfix.cli.main import run
from ckptfix.errors import WriteFailed
from ckptfix.execute import space
from ckptfix.execute.atomic import new_file, write_whole
from tests.bounds.disks import or_skip
from tests.trust import record

SIZES = 20
OLD = b"the old file"


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_untouched(out: Path) -> None:
    assert out.read_bytes() == OLD
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.pth"
    torch.save({f"layer.{n}": torch.randn(64, 64) for n in range(20)}, path)
    return path


@pytest.fixture
def out(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / request.param
    path.write_bytes(OLD)
    return path


@pytest.mark.parametrize("out", ["out.safetensors", "out.pth"], indirect=True)
def test_a_limit_on_files_at_many_sizes(source: Path, out: Path, tmp_path: Path) -> None:
    whole = tmp_path / out.name
    adapt(source, source, whole)
    nbytes = whole.stat().st_size
    for number in range(SIZES):
        with largest_file(nbytes * number // SIZES), pytest.raises(WriteFailed, match="file too large") as caught:
            adapt(source, source, out, existing="replace")
        assert caught.value.exit_code == 4 and "ulimit -f" in str(caught.value)
        assert_untouched(out)
    with largest_file(nbytes):
        adapt(source, source, out, existing="replace")
    assert out.read_bytes() == whole.read_bytes()
    record(f"limited-{out.name}", sizes=SIZES, bytes=nbytes)


@pytest.mark.parametrize("out", ["out"], indirect=True)
def test_a_limit_that_shows_while_it_is_written(out: Path) -> None:
    """As on a file system that cannot reserve."""
    for number in range(SIZES):
        with (
            largest_file(5000 * number + 1),
            pytest.raises(WriteFailed, match="file too large"),
            new_file(out, replace=True) as file,
        ):
            for offset in range(0, 100_000, 10_000):
                file.write(offset, bytes(10_000))
        assert_untouched(out)


@pytest.mark.parametrize("out", ["out.json"], indirect=True)
@pytest.mark.parametrize(
    "args",
    [["inspect", "SOURCE", "--shapes", "-o", "OUT"], ["plan", "SOURCE", "SOURCE", "-o", "OUT"]],
    ids=["inspect", "plan"],
)
def test_small_outputs(args: list[str], source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [{"SOURCE": str(source), "OUT": str(out)}.get(arg, arg) for arg in args]
    for nbytes in (0, 100):
        with largest_file(nbytes):
            status = run(args)
        assert status == 4
        assert capsys.readouterr().err.startswith(f"error: {out}: cannot write: file too large")
        assert_untouched(out)
    assert run(args) == 0 and out.read_bytes() != OLD


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_a_small_file_system_at_many_sizes(name: str, source: Path, tmp_path: Path) -> None:
    whole = tmp_path / name
    adapt(source, source, whole)
    pages = -(-whole.stat().st_size // 4096)
    for number in range(SIZES):
        size = 4096 * (2 + pages * number // SIZES)  # one page for the old file, at most all but one of the new
        with or_skip(mounted(tmp_path / f"disk{number}", "-t", "tmpfs", "-o", f"size={size}")) as disk:
            out = disk / name
            out.write_bytes(OLD)
            with pytest.raises(WriteFailed, match="no space left on device") as caught:
                adapt(source, source, out, existing="replace")
            assert "free some space" in str(caught.value)
            assert_untouched(out)
            with pytest.raises(WriteFailed, match="no space left on device"):
                write_whole(out, whole.read_bytes(), replace=True)  # not reserved: it shows while it is written
            assert_untouched(out)
    record(f"full-{name}", sizes=SIZES, bytes=whole.stat().st_size)


def test_where_nothing_can_be_reserved_the_free_space_is_asked_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with or_skip(mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k")) as disk:
        monkeypatch.setattr(space, "_fallocate", lambda: lambda fd, nbytes: errno.EOPNOTSUPP)
        begun: list[int] = []
        with pytest.raises(WriteFailed, match="no space left on device"):
            adapt(source, source, disk / "out.pth", progress=lambda done, total: begun.append(done))
        assert begun == [] and list(disk.iterdir()) == []


def test_a_file_system_that_counts_no_space_and_reserves_none(source: Path, tmp_path: Path) -> None:
    with or_skip(mounted(tmp_path / "disk", "-t", "ramfs")) as disk:
        adapt(source, source, disk / "out.pth")
        assert list(disk.iterdir()) == [disk / "out.pth"]


def test_a_file_system_that_is_read_only(source: Path, tmp_path: Path) -> None:
    with or_skip(mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "ro")) as disk:
        with pytest.raises(WriteFailed, match="read-only file system"):
            adapt(source, source, disk / "out.pth")
        assert list(disk.iterdir()) == []


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be nobody for a while, where this is root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o555, 0o333])
def test_a_folder_that_one_may_not_write_to_or_list(mode: int) -> None:
    """A folder that cannot be listed cannot be synced either: that shows before anything is replaced."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "folder"
        folder.mkdir()
        (folder / "out").write_bytes(OLD)
        folder.chmod(mode)
        with without_privileges(), pytest.raises(WriteFailed, match=r"permission denied.*choose a folder"):
            write_whole(folder / "out", b"new", replace=True)
        folder.chmod(0o755)
        assert_untouched(folder / "out")


def test_reserving_takes_the_space(tmp_path: Path) -> None:
    with new_file(tmp_path / "out", replace=True) as file:
        file.allocate(1 << 20)
        (temporary,) = tmp_path.iterdir()
        assert temporary.stat().st_size == 1 << 20
        assert temporary.stat().st_blocks * 512 >= 1 << 20
        file.allocate(0)
