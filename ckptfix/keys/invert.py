"""Turn patterns and templates round: what the templates made is matched, what the patterns matched is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ckptfix.keys.pattern import KeyPattern, placeholders_of, put_for_placeholders
from ckptfix.keys.template import KeyTemplate

_SHIFT = re.compile(r"\{\s*([A-Za-z_]\w*)\s*(?:([+-])\s*(\d+)\s*)?\}")
_EXPRESSION = re.compile(r"\{[^{}]*\}")


def invert_keys(
    patterns: Sequence[KeyPattern], templates: Sequence[KeyTemplate], first: Mapping[str, int] | None = None
) -> tuple[list[str], list[str]] | None:
    """Give the patterns and the templates of the way back; None where they cannot be written.

    They can where every wildcard has a name, and all that is calculated with it is to add or subtract one number. A
    name of one side alone is an axis to stack along; `first` gives the least number that such a pattern's name had.
    """
    kinds: dict[str, str | None] = {}
    for pattern in patterns:
        found = placeholders_of(pattern.text)
        if found is None:
            return None
        kinds |= {name: kind for name, kind in found.items() if kind or name not in kinds}
    shifts = _shifts(templates)
    stacked = first or {}
    if shifts is None or any(name not in shifts and name not in stacked for name in kinds):
        return None
    if any(kinds[name] not in (None, "int") for name in stacked):
        return None
    forward: dict[str, str] = {}
    for name, shift in shifts.items():
        kind = kinds.get(name, "int") or ("int" if shift else None)
        forward[name] = f"{{{name}:{kind}}}" if kind else f"{{{name}}}"
    back = {name: _expression(name, -shifts[name] if name in shifts else stacked[name]) for name in kinds}
    return (
        [_SHIFT.sub(lambda found: forward[found[1]], template.text) for template in templates],
        [put_for_placeholders(pattern.text, back) for pattern in patterns],
    )


def _shifts(templates: Sequence[KeyTemplate]) -> dict[str, int] | None:
    """Give what is added to each name; None where anything else is calculated."""
    shifts: dict[str, int] = {}
    for template in templates:
        for expression in _EXPRESSION.findall(template.text):
            shift = _SHIFT.fullmatch(expression)
            if shift is None:
                return None
            number = int(shift[3] or 0) * (-1 if shift[2] == "-" else 1)
            if shifts.setdefault(shift[1], number) != number:
                return None
    return shifts


def _expression(name: str, number: int) -> str:
    return f"{{{name}{number:+d}}}" if number else f"{{{name}}}"
