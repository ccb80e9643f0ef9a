"""Without the shipped recipes at hand, names and shapes lead to the same tensors, or to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inference.judging import judge, shipped
from tests.recipes.case import Case
from tests.recipes.test_parity import CASES

FIRST = {case.recipe: case for case in reversed(CASES)}
"""One case of each recipe."""
ROTARY = {f"{name}-llama" for name in ("meta-transformers", "transformers-meta", "torchtune-meta")} | {
    f"torchtune-transformers-{family}" for family in ("gemma", "llama", "phi3", "qwen2")
}
ROTARY |= {f"transformers-torchtune-{family}" for family in ("gemma", "llama")}
GROUPED = {f"{family}-{ways}" for family in ("falcon", "gpt_neox") for ways in ("fused-split", "split-fused")}
ALIKE = {"esm-v4-v5"}
"""Every layer has the same buffer; in a model so small, the stem's two modules have biases of one shape."""
OPEN = ROTARY | GROUPED | ALIKE | {"subset-classes"}
"""What names and shapes cannot tell: the order of rows in rotary heads and in groups, and which classes are kept."""


def test_most_are_whole() -> None:
    assert len(FIRST) == 94
    assert len(FIRST.keys() - OPEN) == 79


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("case", FIRST.values(), ids=str)
def test_nothing_resolved_is_wrong(case: Case, tmp_path: Path) -> None:
    truth = shipped(case, tmp_path)
    judgement = judge(truth.job.checkpoint.path, truth)
    assert judgement.suggestion.resolved
    assert judgement.wrong == []
    assert judgement.is_whole == (case.recipe not in OPEN)
