"""What one proof found."""

from __future__ import annotations

from msgspec import Struct

_LONGEST = 300


class Finding(Struct, frozen=True):
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
    """Give another library's error on one line of bearable length, with its type."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}"
