"""Write docs/recipes.md: what the shipped recipes do, and how far apart the outputs are that prove them.

python -m tests.recipes.table docs/recipes.md
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

import ckptfix
from ckptfix.recipe import load_recipe
from ckptfix.recipes import list_recipes
from tests.recipes.case import Case
from tests.recipes.proof import TOLERANCE, Conversion, convert

Cells = tuple[str, ...]

RECIPES = ("recipe", "what it converts", "rules", "ops")
PROOFS = ("recipe", "case", "from", "to", "source tensors", "target tensors", "difference", "way back")
INTRODUCTION = """\
# The shipped recipes

`make docs` writes this page. `ckptfix -r NAME` uses a recipe, `ckptfix recipes show NAME` prints it.
"""
ABOUT_PROOFS = f"""\
## Proofs

Each recipe converts a small model with random weights, without a tensor missing or left over. The converted weights are
loaded strictly, and both models are run on the same input. *Difference* is the largest one between two numbers of their
outputs; a test holds it to {TOLERANCE:g} of the largest number, and checks that two tensors exchanged would be noticed.

*Way back* is what `ckptfix invert` makes of the recipe. Exact: a test gets every byte back. Conditional: so it does, as
long as a copy equals its original. Lossy: the rules of the ops named cannot be undone.
"""


def recipe_cells(name: str) -> Cells:
    """Describe a recipe."""
    recipe = load_recipe(name)
    ops = dict.fromkeys(rule.name for rule in recipe.rules)
    return f"`{name}`", recipe.description or "", str(len(recipe.rules)), ", ".join(ops)


def case_cells(conversion: Conversion) -> Cells:
    """Describe what a case became."""
    case, plan = conversion.case, conversion.adapted.plan
    difference = conversion.difference(conversion.state)
    return (
        f"`{case.recipe}`",
        case.name,
        model_name(conversion.source),
        model_name(conversion.target),
        str(len(plan.have)),
        str(len(plan.want)),
        f"{difference:.1e}" if difference else "0",
        way_back(conversion),
    )


def model_name(model: nn.Module) -> str:
    """Name a class and the library that it is from; the tests define those that no library has."""
    library = type(model).__module__.partition(".")[0]
    return type(model).__name__ if library == "tests" else f"{library} {type(model).__name__}"


def way_back(conversion: Conversion) -> str:
    """Name the kind of the inverse, and the ops that make it less than exact."""
    case = conversion.case
    inversion = ckptfix.invert(case.recipe, conversion.file, conversion.target, variables=dict(case.variables))
    for kind in ("lossy", "conditional"):
        ops = dict.fromkeys(str(origin.op) for origin, inverse in inversion.undone if inverse.kind == kind)
        if ops:
            return f"{kind}: {', '.join(ops)}"
    return "exact"


def table(head: Sequence[str], rows: Iterable[Cells]) -> str:
    """Write a table as Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def page(cases: Iterable[Case]) -> str:
    """Carry out every case, and write the page."""
    proofs: list[Cells] = []
    for case in sorted(cases, key=str):
        with TemporaryDirectory() as folder:
            proofs.append(case_cells(convert(case, Path(folder))))
    recipes = table(RECIPES, map(recipe_cells, list_recipes()))
    return "\n".join([INTRODUCTION, recipes, ABOUT_PROOFS, table(PROOFS, proofs)])


if __name__ == "__main__":
    from transformers.utils.logging import disable_progress_bar

    from tests.recipes.test_parity import CASES

    torch.set_num_threads(1)
    disable_progress_bar()
    warnings.simplefilter("ignore")  # what the libraries say of themselves
    Path(sys.argv[1]).write_text(page(CASES), encoding="utf-8")
