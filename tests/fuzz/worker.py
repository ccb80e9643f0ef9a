"""Fuzz one format: `python -m tests.fuzz.worker CORPUS SEED COUNT FAILING` prints what became of it as JSON.

Every input is made of the seed and its number alone. Forked processes try them, with bounds on memory and time; what
ends otherwise than it may is saved into FAILING. torch is never loaded.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.fuzz.attempt import attempt
from tests.fuzz.mutate import mutate
from tests.fuzz.specimen import Files, Specimen

BATCH = 500
"""Inputs that one process tries. A fork is cheap, and what one input leaves behind must not burden the others."""

MEGABYTES = 300
CPU_SECONDS = 1.0
WALL_SECONDS = 20
"""An input that takes longer waits for something: the machine may be busy, but not so busy."""

MOST_FAILURES = 5


def make_input(corpus: Sequence[Specimen], seed: str, number: int) -> Specimen:
    """Change one file of a specimen, or two."""
    rng = Random(f"{seed}:{number}")
    specimen = rng.choice(corpus)
    others = [data for one in corpus for data in one.files.values()]
    files: Files = dict(specimen.files)
    for _ in range(rng.choice((1, 1, 1, min(2, len(files))))):
        name = rng.choice(sorted(files))
        files[name] = mutate(files[name], rng, others)
    return Specimen(specimen.opened, files)


def main(corpus: Path, seed: str, count: int, failing: Path) -> None:
    """Try all inputs and print what came of them."""
    specimens = [Specimen.get(folder) for folder in sorted(corpus.iterdir()) if folder.is_dir()]
    for number, specimen in enumerate(specimens):  # imports what is imported late
        _put(specimen, failing / f"sound-{number}")
        ending, message = attempt(failing / f"sound-{number}" / specimen.opened)
        assert ending == "opened", message
    lines: list[dict[str, object]] = []
    failures: list[str] = []
    while len(lines) < count and len(failures) < MOST_FAILURES:
        found, died = _batch(specimens, seed, range(len(lines), min(len(lines) + BATCH, count)))
        lines += found
        if died is not None:
            lines.append({"ending": "failed", "fault": f"ended by signal {died}"})
        for number in range(len(lines) - len(found) - (died is not None), len(lines)):
            if lines[number]["ending"] == "failed":
                place = failing / f"{number}"
                specimen = make_input(specimens, seed, number)
                _put(specimen, place)
                failures.append(f"{place / specimen.opened}: {lines[number]['fault']}")
    endings = Counter(str(line["ending"]) for line in lines)
    print(
        json.dumps(
            {
                "endings": endings,
                "messages": len({line.get("message") for line in lines}),
                "seconds": max((float(str(line.get("cpu", 0))) for line in lines), default=0),
                "megabytes": max((float(str(line.get("megabytes", 0))) for line in lines), default=0),
                "failures": failures,
            }
        )
    )


def _put(specimen: Specimen, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, data in specimen.files.items():
        (folder / name).write_bytes(data)


def _batch(corpus: Sequence[Specimen], seed: str, numbers: range) -> tuple[list[dict[str, object]], int | None]:
    """Try inputs in one process. Give a line for each that was ended, and the signal that ended the process."""
    log = os.memfd_create("log")
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            _be_child(corpus, seed, numbers, log)
            status = 0
        finally:
            os._exit(status)
    _, state = os.waitpid(pid, 0)
    os.lseek(log, 0, os.SEEK_SET)
    with os.fdopen(log) as file:
        lines = [json.loads(line) for line in file]
    status = os.waitstatus_to_exitcode(state)
    assert status <= 0, "the fuzzer itself failed"
    return lines, -status if status else None


def _be_child(corpus: Sequence[Specimen], seed: str, numbers: range, log: int) -> None:
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (MEGABYTES << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TemporaryDirectory(prefix="ckptfix-fuzz-") as inside:
        for number in numbers:
            specimen = make_input(corpus, seed, number)
            folder = Path(inside, str(number))
            _put(specimen, folder)
            line = _watch(folder / specimen.opened)
            line["megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            os.write(log, f"{json.dumps(line)}\n".encode())
            for name in specimen.files:
                (folder / name).unlink()
            folder.rmdir()


def _watch(path: Path) -> dict[str, object]:
    """Try one input, and say how it ended."""
    signal.alarm(WALL_SECONDS)
    start = time.process_time()
    try:
        ending, message = attempt(path)
    except Exception:  # noqa: BLE001  any is a finding
        return {"ending": "failed", "fault": traceback.format_exc(limit=-6, chain=False)[-1500:]}
    finally:
        signal.alarm(0)
    cpu = time.process_time() - start
    if cpu > CPU_SECONDS:
        return {"ending": "failed", "fault": f"took {cpu:.1f} s", "cpu": cpu}
    return {"ending": ending, "message": _shape_of(message), "cpu": round(cpu, 4)}


def _shape_of(message: str) -> str:
    """Leave out of a message what differs from input to input."""
    return " ".join(word for word in message.split() if word.isalpha())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
