"""Keys that the architecture ties to one tensor must be given one value."""

from __future__ import annotations

from collections.abc import Callable

from ckptfix.errors import TiedConflict
from ckptfix.planning import Plan


def refuse_conflicts(plan: Plan, value_of: Callable[[str], object]) -> None:
    """Compare what tied keys were given, where it was made in different ways. Raises TiedConflict."""
    for first, *others in plan.tied_apart:
        for key in others:
            if value_of(key) != value_of(first):
                raise TiedConflict(
                    f"'{first}' and '{key}' are one tensor in the target and were given different bytes",
                    hint=f"drop one, then {{op: copy, from: {first}, to: {key}}}",
                )
