"""The ops of the recipe language: one file each, found by listing this package."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

from ckptfix.rules.base import Rule


@cache
def rule_types() -> dict[str, type[Rule]]:
    """Give every op and its schema, sorted by op."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return dict(sorted((get_args(rule.model_fields["op"].annotation)[0], rule) for rule in Rule.__subclasses__()))
