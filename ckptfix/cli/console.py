"""What is written to the terminal: answers to stdout, progress and errors to stderr, control characters escaped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from itertools import islice
from typing import Any, Protocol, TextIO

import click

from ckptfix.errors import CkptfixError, WriteFailed

_ANSWERS: ContextVar[TextIO | None] = ContextVar("_ANSWERS", default=None)
"""The real stdout, while a command keeps it for its answer."""

_BLOCK = 1000
"""Lines that are written at once."""


@contextmanager
def keep_stdout() -> Iterator[None]:
    """Keep stdout for the answer: what a model's own code prints meanwhile goes to stderr."""
    token = _ANSWERS.set(_ANSWERS.get() or sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _ANSWERS.reset(token)


def clean(text: str) -> str:
    """Escape what a terminal would obey or hide, line ends too: keys come from strangers' files."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def echo(text: str) -> None:
    """Write one line of the answer to stdout."""
    _write_line(clean(text), _ANSWERS.get() or sys.stdout)


def echo_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout, many at once."""
    rest = map(clean, lines)
    while block := [*islice(rest, _BLOCK)]:
        _write_line("\n".join(block), _ANSWERS.get() or sys.stdout)


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout."""
    _write_line(json.dumps(document, indent=2, allow_nan=False), _ANSWERS.get() or sys.stdout)


def show_error(error: CkptfixError) -> None:
    """Write an error to stderr, one line for each of its parts."""
    for part in error.parts or (error,):
        prefix = click.style("error", fg="red", bold=True) if _has_colour() else "error"
        _write_line(f"{prefix}: {clean(' '.join(str(part).splitlines()))}", sys.stderr)


def show_note(text: str) -> None:
    """Write a remark to stderr."""
    show_progress(f"note: {text}")


def show_progress(text: str) -> None:
    """Write one line to stderr."""
    _write_line(clean(text), sys.stderr)


def _write_line(text: str, stream: TextIO | None) -> None:
    """Write a line. Where the reader has gone, the rest is dropped and the exit status still tells."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
    except OSError as error:
        # What is buffered would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError) and stream is not sys.stderr:
            raise WriteFailed(f"cannot write: {(error.strerror or str(error)).lower()}", where="stdout") from error


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
