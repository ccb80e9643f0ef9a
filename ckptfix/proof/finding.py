"""What one proof found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`passed` is None where the proof could not be tried; `notes` say why, `problems` what failed."""

    passed: bool | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def fail(problem: str) -> Finding:
    """Make the finding of a proof that failed."""
    return Finding(passed=False, problems=(problem,))


def untried(note: str) -> Finding:
    """Make the finding of a proof that could not be tried."""
    return Finding(passed=None, notes=(note,))


def first_keys(keys: list[str]) -> str:
    """Name the first keys of a list."""
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def one_line(error: Exception) -> str:
    """Give the first line of another library's error, with its type."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
