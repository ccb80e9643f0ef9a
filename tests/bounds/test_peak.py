"""What a run holds at its most, of its own: a base, and a little for each tensor, however long the tensors are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed.measure import peak_memory
from ckptfix.tensors import DType, TensorSpec

from .sparse import write_sparse

MB = 1 << 20
BASE = {"rename": 32 * MB, "cast": 64 * MB}
EACH = {".safetensors": 2048, ".pth": 2560}
"""Bytes for each tensor: its entries in two headers, in the plan and in the receipt."""
RULES = {
    "rename": '{op: rename, map: {"m.{x:**}": "n.{x}"}}',
    "cast": '{op: rename, map: {"m.{x:**}": "n.{x}"}}, {op: cast, keys: "**", dtype: bf16}',
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("number", "shape"), [(300, (512, 1024)), (20_000, (16, 64))])
def test_the_most_that_is_held(rule: str, suffix: str, number: int, shape: tuple[int, int], tmp_path: Path) -> None:
    names = [f"layers.{n // 4}.block{n % 4}.weight" for n in range(number)]
    source, target, recipe = tmp_path / f"source{suffix}", tmp_path / "want.json", tmp_path / "recipe.yaml"
    write_sparse(source, {f"m.{name}": TensorSpec(shape, DType.F32) for name in names})
    want = {f"n.{name}": {"shape": shape, "dtype": "F32"} for name in names}
    target.write_text(json.dumps({"schema_version": 1, "tensors": want}))
    recipe.write_text(f"ckptfix: 1\nrules: [{RULES[rule]}]\n")
    command = [sys.executable, "-m", "ckptfix", "adapt", source, target, "-r", recipe, "-o", tmp_path / f"out{suffix}"]
    peak = peak_memory([*map(str, command), "--no-fsync"])
    assert peak <= BASE[rule] + number * EACH[suffix], f"{peak:,} bytes"
