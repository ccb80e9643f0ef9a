"""The ops of the recipe language: one file each, called as its op, found by listing this package."""

from __future__ import annotations

from collections.abc import Set
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptfix.rules.base import Rule


@cache
def rule_types(ops: Set[str] | None = None) -> dict[str, type[Rule]]:
    """Give the schemas of some ops, sorted by op; of all where none is given, or one that there is not."""
    known = [module.name for module in iter_modules(__path__) if module.name != "base"]
    wanted = ops if ops and ops <= set(known) else known
    return {op: _rule_type(op) for op in sorted(wanted)}


def _rule_type(op: str) -> type[Rule]:
    from ckptfix.rules.base import Rule

    module = import_module(f"{__name__}.{op}")
    return next(rule for rule in Rule.__subclasses__() if rule.__module__ == module.__name__)
