"""Plan a written recipe, and hold it against the links."""

from __future__ import annotations

from collections.abc import Mapping

from ckptfix.expr import Initial
from ckptfix.inference.generalise.expected import alike
from ckptfix.inference.generalise.task import Task
from ckptfix.planning import make_plan
from ckptfix.recipe import load_recipe
from ckptfix.tensors import Manifest


def does_as_told(values: Mapping[str, object], task: Task, have: Manifest) -> bool:
    """Tell whether the recipe makes every target key of a task as its links say, and keeps nothing that is dropped."""
    plan = make_plan(load_recipe(values), have, task.want)
    if plan.errors:
        return False
    expected = dict(task.expected)
    expected |= {key: Initial(task.want[key], key, 0) for key in task.filled}
    expected |= {key: expected[original] for key, original in task.copied.items() if original in expected}
    if any(key not in plan.rows or not alike(plan.rows[key].expr, expr) for key, expr in expected.items()):
        return False
    return not any(key in plan.rows and key not in expected for key in task.dropped)
