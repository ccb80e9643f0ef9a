"""Kill runs of `adapt --force` at random moments, and say after each what the output is. Run as a program.

A child is forked for each run from a process that has imported everything: the moments then fall into the writing and
not into the start of an interpreter.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch  # noqa: F401  to be there before the forks

from ckptfix import adapt
from ckptfix.api import target
from ckptfix.digest import hash_chunks


def digest(path: Path) -> str:
    return hash_chunks([path.read_bytes()])


def kill_runs(folder: Path, name: str, kills: int) -> dict[str, int | float]:
    """Replace `folder/out/NAME`, a copy of `folder/old`, by what is made of `folder/source.pth`, and kill that."""
    source, recipe, old, out = folder / "source.pth", folder / "recipe.yaml", folder / "old", folder / "out" / name
    wanted = target(folder / "want.safetensors")

    def restore() -> None:
        out.unlink(missing_ok=True)
        out.hardlink_to(old)

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            adapt(source, wanted, out, recipe, existing="replace")
            os._exit(0)
        return pid

    restore()
    start = time.perf_counter()
    _, status = os.waitpid(fork(), 0)
    whole = time.perf_counter() - start
    assert status == 0
    states = {digest(old): "old", digest(out): "new"}
    assert len(states) == 2

    moments = random.Random(name)
    seen: Counter[str] = Counter()
    for _ in range(kills):
        restore()
        pid = fork()
        time.sleep(moments.uniform(0, 1.05 * whole))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        seen["killed" if os.WIFSIGNALED(status) else "ended before"] += 1
        seen[states.get(digest(out), "torn")] += 1
        left = {path.name for path in out.parent.iterdir()} - {name}
        seen["left a temporary file"] += bool(left)
        seen["more than one file"] += len(left) > 1

    restore()
    _, status = os.waitpid(fork(), 0)
    seen["files after the next run"] = len(list(out.parent.iterdir()))
    seen["the next run wrote the new file"] = status == 0 and states[digest(out)] == "new"
    return {**seen, "kills": kills, "bytes": out.stat().st_size, "seconds_of_a_run": round(whole, 3)}


if __name__ == "__main__":
    print(json.dumps(kill_runs(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
