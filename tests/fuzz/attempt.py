"""Open one input, read what it holds, and describe it, as a user would: the three things that no input may break."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

from ckptfix.cli.main import run
from ckptfix.errors import CkptfixError, RefusedContent
from ckptfix.formats import Contents, Opaque, Pairs, Reader, TensorRef, open_contents
from ckptfix.formats.audit import audit_file
from ckptfix.report.security import security_document

MOST = 1 << 20
"""Bytes of tensors that are read of one input. A view may claim far more than its file holds."""

Ending = Literal["opened", "opened in part", "refused"]


class Fault(Exception):
    """An answer that is none: another exit status, no JSON, an error over several lines."""


def attempt(path: Path) -> tuple[Ending, str]:
    """Give how an input ended, and the message where it was refused. Raises whatever should never be raised."""
    try:
        contents = open_contents(path)
    except CkptfixError as error:
        _search(path, error)
        return "refused", _told(error)
    try:
        _read(contents)
        ending: Ending = "opened"
        message = ""
    except CkptfixError as error:
        ending, message = "opened in part", _told(error)
    _describe(path)
    return ending, message


def _search(path: Path, error: CkptfixError) -> None:
    """Check that a refused file can be searched for names, and is refused in the same words."""
    if not isinstance(error, RefusedContent):
        return
    audit = audit_file(path)
    if audit.refusal is None or audit.refusal.message != error.message:
        raise Fault(f"refused with {error.message!r}, and searched with {audit.refusal!r}")
    json.dumps(security_document(audit))


def _told(error: CkptfixError) -> str:
    """Check that an error can be told, in text and in JSON."""
    if error.exit_code not in (2, 3, 4):
        raise Fault(f"exit {error.exit_code}: {error}")
    if len(str(error)) > 1000:
        raise Fault(f"an error of {len(str(error))} characters")
    json.dumps(error.to_json())
    return error.message


def _read(contents: Contents) -> None:
    left = MOST
    with Reader(contents.stamps) as reader:
        for ref in _tensors(contents):
            nbytes = 0
            for chunk in reader.chunks(ref):
                nbytes += len(chunk)
                left -= len(chunk)
                if left < 0:
                    return
            if nbytes != ref.spec.nbytes:
                raise Fault(f"{nbytes} bytes of a tensor that takes {ref.spec.nbytes}")
        reader.check_unchanged()


def _tensors(contents: Contents) -> Iterator[TensorRef]:
    """Give every tensor once. Values may be shared, and may contain themselves."""
    waiting: list[object] = [contents.root, *(record for _, record in contents.opaque)]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        match node:
            case TensorRef():
                yield node
            case Pairs():
                waiting += [value for _, value in node.items]
            case Opaque():
                waiting += [node.args, node.state, *node.items, *(value for _, value in node.entries)]
            case list() | tuple():
                waiting += node


def _describe(path: Path) -> None:
    for options in ([], ["--json"], ["--security"]):
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(["inspect", str(path), *options])
        if status not in (0, 2, 3, 4) or (status and not err.getvalue().startswith(("error: ", "note: "))):
            raise Fault(f"inspect {options} ends with {status}: {err.getvalue()[:500]!r}")
        if "--json" in options:
            json.loads(out.getvalue())
