"""File systems that share blocks: what is moved takes no room, and a later change of one file shows in no other."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.speed.disk import disk
from ckptfix import adapt
from tests.cli.running import ROOT, spawn

from .disks import or_skip, shared_bytes

BLOCK = 4096
RENAME = 'ckptfix: 1\nrules: [{op: rename, map: {"a.{x:**}": "b.{x}"}}]\n'
DROP = 'ckptfix: 1\nrules: [{op: drop, keys: [a.1, "a.1*"]}]\n'
OLD = b"the old file"


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with or_skip(disk(request.param, tmp_path_factory.mktemp(request.param) / "disk")) as place:
        yield place


@pytest.fixture
def folder(shared: Path) -> Iterator[Path]:
    place = shared / "folder"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def save(path: Path, sizes: list[int]) -> dict[str, torch.Tensor]:
    """Write tensors of so many bytes, all different."""
    random_bytes = np.random.default_rng(1)
    tensors = {
        f"a.{n}": torch.from_numpy(random_bytes.integers(0, 256, nbytes, np.uint8)) for n, nbytes in enumerate(sizes)
    }
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return tensors


def write(source: Path, want: dict[str, torch.Tensor], recipe: str, *more: str) -> dict[str, object]:
    """Adapt beside the source without digests, and give what the command says."""
    folder = source.parent
    (folder / "recipe.yaml").write_text(recipe)
    described = {key: {"shape": list(tensor.shape), "dtype": "U8"} for key, tensor in want.items()}
    (folder / "want.json").write_text(json.dumps({"schema_version": 1, "tensors": described}))
    args = ["adapt", source, folder / "want.json", "-r", folder / "recipe.yaml", "-o", folder / "out.safetensors"]
    found = spawn(*args, "--json", *more)
    assert found.returncode == 0, found.stderr
    said: dict[str, object] = json.loads(found.stdout)
    return said


def assert_holds(path: Path, want: dict[str, torch.Tensor]) -> None:
    found = load_file(path)
    assert found.keys() == want.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in want.items())


@pytest.mark.parametrize("recipe", [RENAME, DROP], ids=["rename", "drop"])
def test_nearly_all_bytes_are_shared(recipe: str, folder: Path, shared: Path) -> None:
    source, out = folder / "source.safetensors", folder / "out.safetensors"
    tensors = save(source, [4 << 20] * 12)
    want = {"b" + key[1:]: tensor for key, tensor in tensors.items()}
    if recipe == DROP:
        want = {key: tensor for key, tensor in tensors.items() if not key.startswith("a.1")}
    nbytes = sum(tensor.nbytes for tensor in want.values())
    os.sync()
    before = os.statvfs(shared)
    said = write(source, want, recipe, "--no-digest")
    os.sync()
    after = os.statvfs(shared)
    assert_holds(out, want)
    cloned = said["cloned"]
    assert isinstance(cloned, int) and nbytes - len(want) * BLOCK <= cloned <= nbytes
    assert shared_bytes(out) >= cloned
    assert (before.f_bfree - after.f_bfree) * before.f_frsize < nbytes // 4

    held = source.read_bytes()
    with out.open("r+b") as file:  # a change of either shows in that one alone
        file.seek(-1000, os.SEEK_END)
        file.write(b"\0" * 1000)
    assert source.read_bytes() == held
    with source.open("r+b") as file:
        file.truncate(BLOCK)
    first = min(want)
    assert torch.equal(load_file(out)[first], want[first])


def test_nothing_is_shared_where_digests_are_asked_for(folder: Path) -> None:
    source = folder / "source.safetensors"
    tensors = save(source, [4 << 20] * 2)
    want = {"b" + key[1:]: tensor for key, tensor in tensors.items()}
    assert write(source, want, RENAME)["cloned"] == 0
    assert_holds(source.with_name("out.safetensors"), want)


def test_runs_that_lie_askew_are_copied(folder: Path) -> None:
    """Tensors of odd lengths, some dropped: few of those left lie in their blocks as in the source's."""
    source = folder / "source.safetensors"
    drawn = random.Random(1)
    tensors = save(source, [drawn.randrange(1, 500_000) for _ in range(40)])
    want = {key: tensor for key, tensor in tensors.items() if not key.startswith("a.1")}
    cloned = write(source, want, DROP, "--no-digest")["cloned"]
    assert_holds(source.with_name("out.safetensors"), want)
    assert isinstance(cloned, int) and cloned < sum(tensor.nbytes for tensor in want.values())


def test_a_killed_run_leaves_the_old_file_or_the_new(folder: Path) -> None:
    source, out = folder / "source.safetensors", folder / "out.safetensors"
    tensors = save(source, [1 << 20] * 40)
    command = [sys.executable, "-m", "ckptfix", "adapt", source, source, "-o", out, "--no-digest", "--force"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out.write_bytes(OLD)
    begin = time.monotonic()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    whole_run = time.monotonic() - begin
    moments = random.Random(1)
    seen = {"old": 0, "new": 0}
    for _ in range(8):
        out.write_bytes(OLD)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(moments.uniform(whole_run / 4, whole_run))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if out.stat().st_size == len(OLD):
            assert out.read_bytes() == OLD
            seen["old"] += 1
        else:
            assert_holds(out, tensors)
            seen["new"] += 1
        adapt(source, source, folder / "next.safetensors")  # removes what is left
        (folder / "next.safetensors").unlink()
        assert {path.name for path in folder.iterdir()} == {source.name, out.name}
    assert seen["old"], seen
