"""What is written to the terminal: answers to stdout, progress and errors to stderr, control characters escaped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import click

from ckptfix.errors import CkptfixError


def clean(text: str) -> str:
    """Escape what a terminal would obey or hide: keys come from strangers' files."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


def echo(text: str, *, err: bool = False) -> None:
    """Write one line."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    click.echo(clean(text).encode(encoding, "backslashreplace").decode(encoding), err=err)


def echo_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout."""
    for line in lines:
        echo(line)


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(document, indent=2))


def show_error(error: CkptfixError) -> None:
    """Write an error to stderr, one line for each of its parts."""
    for part in error.parts or (error,):
        prefix = click.style("error", fg="red", bold=True) if _has_colour() else "error"
        echo_styled(f"{prefix}: {clean(str(part)).replace(chr(10), ' ')}")


def show_note(text: str) -> None:
    """Write a remark to stderr."""
    echo(f"note: {text}", err=True)


def echo_styled(text: str) -> None:
    """Write a line that is already clean and may carry colour to stderr."""
    click.echo(text.encode("utf-8", "backslashreplace").decode(), err=True)


def _has_colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _ignore(done: int, total: int, text: str = "") -> None:
    """Draw nothing."""


class Update(Protocol):
    """Hears how much is done, of how much, and what is being done."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


@contextmanager
def progress_bar(label: str) -> Iterator[Update]:
    """Draw a bar with the time left on stderr, where that is a terminal; give a function (done, total, text)."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_eta=True) as bar:

        def update(done: int, total: int, text: str = "") -> None:
            bar.length = max(total, 1)
            bar.label = f"{label} {text}".strip()
            bar.update(done - bar.pos)

        yield update
