"""Kill runs of `adapt --force` that write several files, and say after each what a loader would find. Run as a program.

What it would find is told by bytes alone: the file that names the others, and those that it names.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch  # noqa: F401  to be there before the forks

from ckptfix import adapt

LIMIT = 2_100_000
INDEX = "model.safetensors.index.json"
FIRST = {"out": INDEX, "regrouped": INDEX, "out.dcp": ".metadata"}
"""An output, and the file of it that a loader reads first. What is new in `regrouped` has other names than the old."""


def state(out: Path, old: Path, new: Path) -> str:
    """Give the output that a loader would find, 'none', or 'mixed'."""
    first = FIRST[out.name]
    if not (out / first).exists():
        return "none"
    for name, whole in (("old", old), ("new", new)):
        if (out / first).read_bytes() == (whole / first).read_bytes():
            same = all((out / file.name).read_bytes() == file.read_bytes() for file in whole.iterdir())
            return name if same else "mixed"
    return "mixed"


def wait_until_begun(pid: int, out: Path) -> None:
    """Wait until a run has its first file, or has ended."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not list(out.glob(".ckptfix-*")) and os.waitid(os.P_PID, pid, ended) is None:
        time.sleep(0.001)


def kill_runs(folder: Path, name: str, kills: int) -> dict[str, int | float]:
    """Replace the old output by what is made of `folder/new.pth`, and kill that; then let the next run end."""
    out = folder / name
    kept = {word: folder / f"kept-{word}" for word in ("old", "new")}

    def run(source: str) -> int:
        limit = 2 * LIMIT if (name, source) == ("regrouped", "old") else LIMIT
        pid = os.fork()
        if pid == 0:
            adapt(folder / f"{source}.pth", folder / "old.pth", f"{out}/", max_shard_size=limit, existing="replace")
            os._exit(0)
        return pid

    took = 60.0
    for word, whole in kept.items():
        pid = run(word)
        wait_until_begun(pid, out)
        start = time.perf_counter()
        assert os.waitpid(pid, 0)[1] == 0
        took = min(took, time.perf_counter() - start)
        shutil.copytree(out, whole)

    moments = random.Random(name)
    seen: Counter[str] = Counter()
    for _ in range(kills):
        shutil.rmtree(out)
        shutil.copytree(kept["old"], out)
        pid = run("new")
        wait_until_begun(pid, out)
        time.sleep(moments.uniform(0, took))
        os.kill(pid, signal.SIGKILL)
        seen["killed" if os.WIFSIGNALED(os.waitpid(pid, 0)[1]) else "ended before"] += 1
        seen[state(out, *kept.values())] += 1
        seen["left finished files"] += any(path.suffix != ".tmp" for path in out.glob(".ckptfix-*"))
        assert os.waitpid(run("new"), 0)[1] == 0
        names = {path.name for path in out.iterdir()}
        seen["the next run ended it"] += state(out, *kept.values()) == "new" and names == {
            path.name for path in kept["new"].iterdir()
        }
    return {**seen, "kills": kills, "files": len(list(kept["new"].iterdir())), "seconds_of_writing": round(took, 3)}


if __name__ == "__main__":
    print(json.dumps(kill_runs(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
