"""Mutation fuzzing of every reader: 20,000 inputs, each opened, read or refused, and never anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptfix.formats import list_formats, open_contents
from tests.durability.soak import SOAK
from tests.fuzz.corpus import MAKERS, write_corpus
from tests.fuzz.specimen import Specimen
from tests.trust import record

ROOT = Path(__file__).parents[2]

SEED = os.environ.get("CKPTFIX_FUZZ_SEED", "0")
MUTATIONS = 200_000 if SOAK else 20_000

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled", "ignore:torch.quantize", "ignore:`torch.jit"
)


def test_every_format_has_a_corpus() -> None:
    assert sorted(MAKERS) == sorted(known.name for known in list_formats())


@pytest.mark.parametrize("name", MAKERS)
def test_no_mutation_breaks_a_reader(name: str, tmp_path: Path) -> None:
    corpus, failing = tmp_path / "corpus", tmp_path / "failing"
    write_corpus(name, corpus)
    for folder in (path for path in corpus.iterdir() if path.is_dir()):
        found = open_contents(folder / Specimen.get(folder).opened)
        assert name in found.format or (name == "sharded checkpoint" and found.format.startswith("sharded"))
    seed, count = f"{SEED}:{name}", -(-MUTATIONS // len(MAKERS))
    print(f"seed {seed}, {count} mutations")
    command = [sys.executable, "-m", "tests.fuzz.worker", str(corpus), seed, str(count), str(failing)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    outcome = json.loads(ran.stdout)
    assert not outcome["failures"], "\n\n".join(outcome["failures"])
    endings = outcome["endings"]
    opened, refused = endings.get("opened", 0), endings.get("refused", 0) + endings.get("opened in part", 0)
    assert opened + refused == count
    # Where most fail at the first check, or none fails, the mutations are no test.
    assert opened > count / 50 and refused > count / 10 and outcome["messages"] > 10, outcome
    record(
        f"fuzz-{name.replace(' ', '-')}",
        mutations=count,
        read=opened,
        refused=refused,
        messages=outcome["messages"],
        seconds=round(outcome["seconds"], 3),
        megabytes=round(outcome["megabytes"], 1),
        seed=SEED,
    )
