"""Run the example of a rule: what the tests check, and what `explain` can show."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from ckptfix.document import parse_document
from ckptfix.edits import Example
from ckptfix.errors import CkptfixError
from ckptfix.planning.plan import make_plan
from ckptfix.recipe import load_recipe
from ckptfix.tensors import DType, Manifest, TensorSpec


class Outcome(Struct, frozen=True):
    """What an example gives: the text of every row of the table, or the errors on the way."""

    rows: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[CkptfixError, ...] = ()

    def agrees_with(self, example: Example) -> bool:
        """Tell whether the example says exactly this."""
        if example.fails is not None:
            return any(example.fails in str(error) for error in self.errors)
        return not self.errors and dict(self.rows) == dict(example.gives)


def run_example(example: Example) -> Outcome:
    """Parse the example's rule and plan it alone."""
    try:
        recipe = load_recipe({"ckptfix": 1, "rules": [parse_document(example.rule, "example").value]})
        plan = make_plan(recipe, _manifest(example.have), _manifest(example.want))
    except CkptfixError as error:
        return Outcome(errors=(error, *error.parts))
    return Outcome({key: str(row.expr) for key, row in plan.rows.items()}, plan.errors)


def _manifest(tensors: Mapping[str, list[int] | str]) -> Manifest:
    """Read shapes, F32 unless the value is a text like `I64 [2, 3]`."""
    return Manifest({key: _spec(value) for key, value in tensors.items()})


def _spec(value: list[int] | str) -> TensorSpec:
    if not isinstance(value, str):
        return TensorSpec(tuple(value), DType.F32)
    dtype, _, extents = value.partition(" ")
    shape = tuple(int(extent) for extent in extents.strip("[]").split(",") if extent.strip())
    return TensorSpec(shape, DType(dtype))
