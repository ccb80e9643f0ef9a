"""The page about the shipped recipes says what they do: none is left out, and no figure is out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptfix.recipes import list_recipes
from tests.recipes.case import Case
from tests.recipes.proof import convert
from tests.recipes.table import PROOFS, RECIPES, Cells, case_cells, recipe_cells
from tests.recipes.test_parity import CASES

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
DIFFERENCE = PROOFS.index("difference")


def rows(head: Cells) -> list[Cells]:
    """Read the table with this head."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    below = lines[lines.index(f"| {' | '.join(head)} |") + 2 :]
    end = below.index("") if "" in below else len(below)
    return [tuple(line.removeprefix("| ").removesuffix(" |").split(" | ")) for line in below[:end]]


def test_the_page_lists_the_shipped_recipes() -> None:
    assert rows(RECIPES) == [recipe_cells(name) for name in list_recipes()]


def test_the_page_lists_the_proofs() -> None:
    assert [row[:2] for row in rows(PROOFS)] == [(f"`{case.recipe}`", case.name) for case in sorted(CASES, key=str)]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_proof_is_as_on_the_page(case: Case, tmp_path: Path) -> None:
    (row,) = [row for row in rows(PROOFS) if row[:2] == (f"`{case.recipe}`", case.name)]
    conversion = convert(case, tmp_path)
    measured = case_cells(conversion)
    assert measured[:DIFFERENCE] + measured[DIFFERENCE + 1 :] == row[:DIFFERENCE] + row[DIFFERENCE + 1 :]
    assert float(row[DIFFERENCE]) < conversion.allowed  # rounding differs from machine to machine
