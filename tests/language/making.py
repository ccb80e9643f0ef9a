"""Small manifests and plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptfix.planning import Plan, make_plan
from ckptfix.recipe import load_recipe
from ckptfix.tensors import DType, Manifest, TensorSpec


def spec(*shape: int, dtype: DType = DType.F32) -> TensorSpec:
    return TensorSpec(shape, dtype)


def manifest(tensors: Mapping[str, object], **more: Any) -> Manifest:
    """Make a manifest of shapes (F32) or specs."""
    return Manifest(
        {key: value if isinstance(value, TensorSpec) else spec(*value) for key, value in tensors.items()},
        **more,
    )


def plan(
    rules: list[dict[str, Any]] | str,
    have: Mapping[str, object],
    want: Mapping[str, object] | Manifest,
    recipe: Mapping[str, Any] | None = None,
    **options: Any,
) -> Plan:
    """Plan rules given as values, or as the text of a whole recipe."""
    source = rules if isinstance(rules, str) else {"ckptfix": 1, "rules": rules, **(recipe or {})}
    target = want if isinstance(want, Manifest) else manifest(want)
    return make_plan(load_recipe(source), manifest(have), target, **options)


def rows(made: Plan) -> dict[str, str]:
    return {key: str(row.expr) for key, row in made.rows.items()}


def errors(made: Plan) -> list[str]:
    return [str(error) for error in made.errors]
