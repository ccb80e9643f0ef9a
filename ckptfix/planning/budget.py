"""How many bytes an output may take, held against a plan before a tensor is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ckptfix.edits import Made
from ckptfix.errors import CkptfixError, Origin, RuleError
from ckptfix.expr import Read

LEAST = 16 << 30
"""Bytes that any output may take unasked."""

FACTOR = 8
"""And so many times the bytes of the source's files: casts and copies make more of them, slips in a number far more."""


def default_budget(files: Iterable[Path]) -> int:
    """Give the bytes that the output of a source may take where nobody says how many."""
    return max(LEAST, FACTOR * sum(file.stat().st_size for file in files if file.is_file()))


def over_budget(made: Iterable[Made], origin: Origin, allowed: int) -> list[CkptfixError]:
    """Say that what one rule makes takes more than the whole output may; what it only renames is not made."""
    rows = [(row.expr.spec.nbytes, row.key, row.expr.spec) for row in made if not isinstance(row.expr, Read)]
    total = sum(nbytes for nbytes, _, _ in rows)
    if total <= allowed:
        return []
    nbytes, key, spec = max(rows, key=lambda row: row[0])
    largest = f"'{key}' {spec} of {nbytes:,} bytes"
    what = f"makes {largest}" if nbytes == total else f"makes {total:,} bytes, {largest} among them"
    return [RuleError(f"{what}; an output may take {allowed:,}", where=origin, hint="--max-output SIZE allows more")]
