"""Carry out rules on a few tensors, to compare what they make with an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ckptfix.errors import CkptfixError
from ckptfix.formats import Checkpoint, Reader
from ckptfix.tensors import Manifest

if TYPE_CHECKING:
    from torch import Tensor

Rules = Sequence[Mapping[str, object]]


def carry_out(
    source: Checkpoint, reader: Reader, sources: Sequence[str], wanted: Manifest, rules: Rules
) -> dict[str, Tensor] | None:
    """Give the tensors that rules make of some sources; None where they do not apply or do not give all wanted ones."""
    from ckptfix.execute.values import Values
    from ckptfix.planning import make_plan
    from ckptfix.recipe import load_recipe
    from ckptfix.targets.base import Target

    try:
        recipe = load_recipe({"ckptfix": 1, "rules": list(rules)})
        plan = make_plan(recipe, Manifest({key: source.manifest[key] for key in sources}), wanted)
        if plan.errors or len(plan.outputs) < len(wanted):
            return None
        values = Values(source.tensors, reader, Target("the example", wanted, not_buildable="it is a file"))
        return {key: values.tensor(key, row.expr) for key, row in plan.outputs.items()}
    except CkptfixError:
        return None


def read_tensor(checkpoint: Checkpoint, reader: Reader, key: str) -> Tensor:
    """Read a tensor."""
    from ckptfix.execute.evaluate import from_bytes

    return from_bytes(reader.read(checkpoint.tensors[key]), checkpoint.manifest[key])
