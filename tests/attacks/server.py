"""Run hostile inputs, each in a forked child that is watched: what it opens, imports and runs, its time and its memory.

`python -m tests.attacks.server` answers a JSON line with a JSON line. It loads ckptfix once and opens sound files of
every kind, so that a child has nothing left to import: from then on ANY import, execution of code, process or socket
is a breach, and so is every open but one for reading below the folder of the input.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from ckptfix.rules import rule_types
from tests.loading import load_formats

BREACH = 99
"""The exit status of a child that did what it must not."""

SECONDS = 20
"""A child that has not ended by then waits for something."""

MEGABYTES = 300

_LAZY = (
    "difflib",
    "encodings.cp437",
    "encodings.latin_1",
    "encodings.raw_unicode_escape",
    "encodings.utf_16_le",
    "encodings.utf_32_be",
)
"""Modules of the standard library that an error text or a decoder loads when it first needs them."""

_QUIET = {
    "object.__getattr__",
    "object.__setattr__",
    "object.__delattr__",
    "builtins.id",
    "gc.get_objects",
    "sys._getframe",
    "glob.glob",
    "glob.glob/2",
    "pathlib.Path.glob",
    "os.listdir",
    "os.scandir",
    "signal.pthread_kill",
}
"""Events that change nothing and read no content."""


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up(sys.argv[1:])
    print(json.dumps({"ready": True, "megabytes": _memory()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), file=answers, flush=True)


def warm_up(folders: list[str]) -> None:
    """Run every kind of request on the sound inputs below these folders."""
    for name in _LAZY:
        importlib.import_module(name)
    load_formats()
    rule_types()
    sink = StringIO()
    with redirect_stdout(sink), redirect_stderr(sink):
        for folder in folders:
            requests = json.loads((Path(folder) / "requests.json").read_text())
            for argv in requests:
                _TASKS[argv[0]](argv[1:])


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Fork a child that does the tasks of a request until one fails; give all that is known of it."""
    out, err, log = (os.memfd_create(name) for name in ("out", "err", "log"))
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _be_child(request, out, err, log)
    _, state, usage = os.wait4(pid, 0)
    answer = {
        "status": os.waitstatus_to_exitcode(state),
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": time.perf_counter() - start,
        "megabytes": usage.ru_maxrss / 1024,
        "out": _content(out),
        "err": _content(err),
        "breaches": _content(log).splitlines(),
    }
    for descriptor in (out, err, log):
        os.close(descriptor)
    return answer


def _be_child(request: dict[str, Any], out: int, err: int, log: int) -> None:
    """Do the tasks and exit; never return."""
    status = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(request["folder"])
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        limit = _address_space() + (MEGABYTES << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))
        sys.addaudithook(_watch(request["folder"], log))
        for argv in request["tasks"]:
            status = _TASKS[argv[0]](argv[1:])
            if status:
                break
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:  # noqa: BLE001  the parent asserts that there is none
        os.write(err, f"{type(error).__name__}: {error!r}"[:2000].encode())
    finally:
        os._exit(status)


def _watch(folder: str, log: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Make the hook. It ends the child at once: an exception could be caught by what it is meant to stop."""
    below = os.path.realpath(folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _QUIET:
            return
        if event == "open":
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if isinstance(path, str) and not writes and os.path.realpath(path).startswith(below):
                return
        os.write(log, f"{event} {arguments!r:.300}\n".encode(errors="replace"))
        os._exit(BREACH)

    return hook


def _inspect(argv: list[str]) -> int:
    from ckptfix.cli.main import run

    return run(argv)


def _read(argv: list[str]) -> int:
    """Read every tensor, and print its dtype, shape and digest by key."""
    from ckptfix.cli.console import print_json, show_error
    from ckptfix.errors import CkptfixError
    from ckptfix.formats import Reader, open_checkpoint

    found: dict[str, Any] = {}
    try:
        checkpoint = open_checkpoint(argv[0])
        with Reader() as reader:
            for key, ref in checkpoint.tensors.items():
                digest = sha256()
                for chunk in reader.chunks(ref):
                    digest.update(chunk)
                found[key] = [str(ref.spec.dtype), list(ref.spec.shape), digest.hexdigest()]
            reader.check_unchanged()
    except CkptfixError as error:
        print_json({"error": error.to_json()})
        show_error(error)
        return error.exit_code
    print_json(found)
    return 0


_TASKS: dict[str, Callable[[list[str]], int]] = {"ckptfix": _inspect, "read": _read}


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read().decode("utf-8", "replace")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
