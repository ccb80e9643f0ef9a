"""No changed file gives other tensors than the format's own library reads of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability.soak import SOAK
from tests.fuzz.corpus import write_corpus
from tests.fuzz.test_fuzz import ROOT, SEED
from tests.trust import record

INPUTS = 20_000 if SOAK else 500

pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize", "ignore:`torch.jit")


@pytest.mark.parametrize("name", ["safetensors", "torch legacy", "torch zip"])
def test_both_read_the_same_tensors_or_one_refuses(name: str, tmp_path: Path) -> None:
    write_corpus(name, tmp_path / "corpus")
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.compare"]
    arguments = [str(tmp_path / "corpus"), name, f"{SEED}:compare:{name}", str(INPUTS), str(tmp_path / "failing")]
    ran = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    outcomes = json.loads(ran.stdout)
    assert "other tensors" not in outcomes, f"{tmp_path / 'failing'}: {outcomes}"
    assert outcomes["same tensors"] > INPUTS / 25, outcomes
    record(f"compared-{name.replace(' ', '-')}", **{word.replace(" ", "_"): count for word, count in outcomes.items()})
