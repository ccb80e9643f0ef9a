"""The `ckptfix` command, also as `python -m ckptfix`: signals are answered before anything large is loaded."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

from ckptfix.cli import INTERRUPTED


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and end the process. SIGTERM and SIGHUP end as Ctrl-C does, with what was begun cleaned up.

    Before the command line is loaded, and once it has its exit status, there is nothing to clean up: a signal then
    ends the process at once.
    """
    status, working = INTERRUPTED, False

    def answer(*_: object) -> None:
        if working:
            raise KeyboardInterrupt
        os._exit(status)

    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(ending, answer)
    # What a command makes is small and lives to its end: looking for cycles in it is a fifth of a short run's time.
    gc.set_threshold(200_000)
    # Looking for plugins of pydantic reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # numpy is loaded to cast; the threads that its linear algebra starts would take the processors from the casting.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ckptfix.cli.main import run

    try:
        working = True
        status = run(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:  # a second one, while the first was answered
        status = INTERRUPTED
    finally:
        working = False
    _end(status)


def _end(status: int) -> None:
    """End without taking the interpreter apart, which costs time, and in which a signal would change the status."""
    import atexit
    from contextlib import suppress

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # what goes to a closed pipe, or a closed stream
                stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
