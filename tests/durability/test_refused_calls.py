"""A quota, and file systems without hard links or without a renaming that refuses: by calls that the kernel refuses."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckptfix import verify

from .refusing import NUMBERS

pytestmark = pytest.mark.skipif(platform.machine() not in NUMBERS, reason="the numbers of its calls are not listed")

ROOT = Path(__file__).parents[2]
OLD = b"the old file"
NO_LINKS = "link=EPERM,linkat=EPERM"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.pth"
    torch.save({f"layer.{n}": torch.full((64, 64), float(n)) for n in range(6)}, path)
    return path


def adapt_refused(calls: str, source: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.durability.refusing", calls, "adapt", source, source, *args]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("calls", ["fallocate=EDQUOT", "fallocate=EOPNOTSUPP,pwrite64=EDQUOT"])
@pytest.mark.parametrize("options", [(), ("--max-shard-size", "20KB")], ids=["file", "shards"])
def test_a_quota(calls: str, options: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    """It shows when the space is reserved, or else at the first write."""
    out = tmp_path / "out" / "model.safetensors"
    out.parent.mkdir()
    out.write_bytes(OLD)
    found = adapt_refused(calls, source, "-o", out, "--force", *options)
    assert found.returncode == 4
    assert found.stderr.endswith("cannot write: disk quota exceeded (free some space, or write to another disk)\n")
    assert [path.name for path in out.parent.iterdir()] == [out.name] and out.read_bytes() == OLD


@pytest.mark.parametrize("calls", [NO_LINKS, f"{NO_LINKS},renameat2=EINVAL"])
@pytest.mark.parametrize("name", ["out/", "out.dcp"])
def test_a_set_without_hard_links(calls: str, name: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    command = ("-o", f"{tmp_path}/{name}", "--max-shard-size", "20KB")
    for again in ((), ("--force",)):
        found = adapt_refused(calls, source, *command, *again)
        assert (found.returncode, found.stderr) == (0, "")
        assert len(list(out.iterdir())) == 7 and not list(out.glob(".ckptfix-*"))
        assert verify(out, source).values
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "exists (--force replaces it)" in adapt_refused(calls, source, *command).stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_set_that_cannot_get_its_names_leaves_nothing(source: Path, tmp_path: Path) -> None:
    command = ("-o", f"{tmp_path}/out/", "--max-shard-size", "20KB")
    found = adapt_refused(f"{NO_LINKS},renameat2=EROFS", source, *command)
    assert found.returncode == 4
    assert "cannot write: read-only file system (choose a folder that you may write to)" in found.stderr
    assert not (tmp_path / "out").exists()
