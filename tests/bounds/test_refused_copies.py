"""Where the kernel refuses to share or to reserve, the bytes are copied, and are the same."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.speed.disk import disk
from tests.cli.running import ROOT, spawn
from tests.durability.refusing import NUMBERS

from .disks import or_skip

pytestmark = pytest.mark.skipif(platform.machine() not in NUMBERS, reason="the numbers of its calls are not listed")

REFUSALS = [
    *(f"ioctl={error}" for error in ("EOPNOTSUPP", "EINVAL", "EXDEV", "ENOTTY")),
    *(f"fallocate={error}" for error in ("EOPNOTSUPP", "ENOSYS", "EINVAL")),
    "ioctl=EOPNOTSUPP,fallocate=EOPNOTSUPP",
]


def save(path: Path) -> None:
    save_file({f"layer.{n}": torch.randn(500, 600) for n in range(12)}, path)


def adapt_refused(calls: str, source: Path, out: Path) -> int:
    """Adapt where calls are refused, and give how many bytes are shared."""
    args = ("adapt", source, source, "-o", out, "--no-digest", "--json")
    command = [sys.executable, "-m", "tests.durability.refusing", calls, *args]
    found = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    return int(json.loads(found.stdout)["cloned"])


@pytest.mark.parametrize("calls", REFUSALS)
def test_the_output_is_the_same(calls: str, tmp_path: Path) -> None:
    source, plain, out = tmp_path / "source.safetensors", tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save(source)
    assert spawn("adapt", source, source, "-o", plain, "--no-digest").returncode == 0
    adapt_refused(calls, source, out)
    assert out.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("error", ["EOPNOTSUPP", "EINVAL"])
def test_a_file_system_that_could_share(error: str, tmp_path: Path) -> None:
    with or_skip(disk("xfs", tmp_path / "disk")) as folder:
        source = folder / "source.safetensors"
        save(source)
        assert adapt_refused("fallocate=EOPNOTSUPP", source, folder / "plain.safetensors") > 0
        assert adapt_refused(f"ioctl={error}", source, folder / "out.safetensors") == 0
        assert (folder / "out.safetensors").read_bytes() == (folder / "plain.safetensors").read_bytes()
