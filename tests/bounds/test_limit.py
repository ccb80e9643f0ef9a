"""Checkpoints far larger than what the process may hold: one tensor of nearly all of it, under a limit on memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ckptfix.tensors import DType, TensorSpec
from tests.durability.soak import SOAK

from .sparse import marks, write_sparse

ROOT = Path(__file__).parents[2]
LIMIT = 400 << 20
"""Bytes of private memory that a process may map, in all its threads."""
COLUMNS = 8192
MB = 10**6
SMALL = TensorSpec((64, 64), DType.F32)

Place = tuple[str, tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """A rule on the one large tensor, what it makes of it, and where its elements go; `size` is the default run's."""

    size: int
    rule: str
    want: Callable[[int], Mapping[str, TensorSpec]]
    place: Callable[[int, int, int], Place | None]


def spec(*shape: int, dtype: DType = DType.F32) -> TensorSpec:
    return TensorSpec(shape, dtype)


HALF = COLUMNS // 2
CASES = {
    "drop": Case(2000 * MB, "{op: drop, keys: big}", lambda rows: {}, lambda rows, row, column: None),
    "split": Case(
        400 * MB,
        '{op: rearrange, from: big, to: [a, b], layout: "(a+b) ... -> a ..., b ..."}',
        lambda rows: {"a": spec(rows // 2, COLUMNS), "b": spec(rows // 2, COLUMNS)},
        lambda rows, row, column: ("ab"[row // (rows // 2)], (row % (rows // 2), column)),
    ),
    "inner": Case(
        300 * MB,
        '{op: rearrange, from: big, to: [a, b], layout: "o (a+b) -> o a, o b"}',
        lambda rows: {"a": spec(rows, HALF), "b": spec(rows, HALF)},
        lambda rows, row, column: ("ab"[column // HALF], (row, column % HALF)),
    ),
    "turn": Case(
        500 * MB,
        '{op: rearrange, keys: big, layout: "o i -> i o"}',
        lambda rows: {"big": spec(COLUMNS, rows)},
        lambda rows, row, column: ("big", (column, row)),
    ),
    "cast": Case(
        500 * MB,
        "{op: cast, keys: big, dtype: bf16}",
        lambda rows: {"big": spec(rows, COLUMNS, dtype=DType.BF16)},
        lambda rows, row, column: ("big", (row, column)),
    ),
}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))


def test_the_limit_limits() -> None:
    held = [sys.executable, "-c", f"bytearray({LIMIT})"]
    found = subprocess.run(held, preexec_fn=limit_memory, capture_output=True, text=True, check=False)
    assert found.returncode == 1 and found.stderr.endswith("MemoryError\n")


def need(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        pytest.skip(f"{folder} has {free / 1e9:.1f} GB free, the test needs {nbytes / 1e9:.1f} GB")


def elements(path: Path, places: Sequence[Place]) -> list[float]:
    """Read single elements with the libraries of the formats, without loading a tensor."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return [
                float(file.get_slice(key)[place[0] : place[0] + 1, place[1] : place[1] + 1]) for key, place in places
            ]
    tensors = torch.load(path, mmap=True, weights_only=True)
    return [float(tensors[key][place]) for key, place in places]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", CASES)
def test_one_tensor_larger_than_the_memory(name: str, suffix: str, tmp_path: Path) -> None:
    case = CASES[name]
    nbytes = 20_000 * MB if SOAK else case.size
    rows = nbytes // (4 * COLUMNS) // 2 * 2
    big = spec(rows, COLUMNS)
    want = {"small": SMALL, **case.want(rows)}
    need(tmp_path, sum(spec.nbytes for spec in want.values()) + 100 * MB)
    source, out, recipe, target = (tmp_path / each for each in (f"s{suffix}", f"o{suffix}", "r.yaml", "want.json"))
    write_sparse(source, {"big": big, "small": SMALL})
    assert source.stat().st_blocks * 512 < MB
    recipe.write_text(f"ckptfix: 1\nrules: [{case.rule}]\n")
    described = {key: {"shape": spec.shape, "dtype": str(spec.dtype)} for key, spec in want.items()}
    target.write_text(json.dumps({"schema_version": 1, "tensors": described}))
    try:
        found = subprocess.run(
            [sys.executable, "-m", "ckptfix", "adapt", source, target, "-r", recipe, "-o", out, "--no-fsync"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=limit_memory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert out.stat().st_size >= sum(spec.nbytes for spec in want.values())
        moved = [(case.place(rows, *divmod(at, COLUMNS)), value) for at, value in marks(big)]
        sampled = [(place, value) for place, value in moved if place is not None]
        sampled += [(("small", divmod(at, 64)), value) for at, value in marks(SMALL)]
        assert elements(out, [place for place, _ in sampled]) == [value for _, value in sampled]
        beside = [(key, (row, column ^ 1)) for (key, (row, column)), _ in sampled if key != "small"]
        assert not any(elements(out, beside))
    finally:
        out.unlink(missing_ok=True)
