"""Ask the server, and hold what it answers against what an attack must come to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.clock import is_over, slowness

from .server import BREACH, MEGABYTES

ROOT = Path(__file__).parents[2]

CPU_SECONDS = 1.0
"""What one input may cost. It is processor time: the machine may be busy with something else."""


@dataclass(frozen=True)
class Outcome:
    """What became of a child."""

    status: int
    cpu: float
    wall: float
    megabytes: float
    out: str
    err: str
    breaches: list[str] = field(default_factory=list)

    def documents(self) -> list[Any]:
        """Give the JSON documents that were printed; each begins with a line that is a brace."""
        found = []
        at = 0 if self.out.startswith("{\n") else self.out.find("\n{\n") + 1
        while self.out.startswith("{\n", at):
            document, at = json.JSONDecoder().raw_decode(self.out, at)
            found.append(document)
            at += 1
        return found

    def document(self) -> Any:
        """Give the last of them."""
        return self.documents()[-1]


class Server:
    """The process that forks the children."""

    def __init__(self, sound: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.server", str(sound)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.megabytes = self._answer()["megabytes"]

    def run(self, folder: Path, *tasks: list[str]) -> Outcome:
        """Do the tasks in one child, in order, until one fails. Where it was slow, a second time tells the noise."""
        assert self._process.stdin
        for _ in range(2):
            print(json.dumps({"folder": str(folder), "tasks": tasks}), file=self._process.stdin, flush=True)
            outcome = Outcome(**self._answer())
            if outcome.cpu <= CPU_SECONDS:
                break
        return outcome

    def close(self) -> None:
        """Let it end."""
        self._process.communicate(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the server has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


def listing(folder: Path) -> dict[str, int]:
    """Everything below a folder, with its kind and size."""
    return {str(path.relative_to(folder)): path.lstat().st_mode for path in folder.rglob("*")}


def breach_of(outcome: Outcome) -> str | None:
    """Say what a child did that none may do, whatever its input; None where there is nothing."""
    if outcome.status == BREACH:
        return f"it did {'; '.join(outcome.breaches)}"
    if outcome.status < 0:
        return f"it ended by signal {-outcome.status} after {outcome.wall:.1f} s"
    if outcome.status not in (0, 1, 2, 3, 4) or "Traceback" in outcome.err:
        return f"it ended with {outcome.status}: {outcome.err[-300:]}"
    if is_over(outcome.cpu, CPU_SECONDS):
        return f"it took {outcome.cpu:.2f} s"
    if outcome.megabytes > MEGABYTES:
        return f"it took {outcome.megabytes:.0f} MB"
    return None


def refusal_fault(outcome: Outcome, status: int = 3, unknown: bool = False) -> str | None:
    """Say how a refusal is wrong: another status, more than one line, or no idea of the format."""
    if (breach := breach_of(outcome)) is not None:
        return breach
    lines = outcome.err.splitlines()
    if outcome.status != status:
        return (
            f"it ended with {outcome.status}, not {status}: {outcome.err[-200:]!r} {''.join(outcome.out.split())[-80:]}"
        )
    if len(lines) != 1 or not lines[0].startswith("error: ") or len(lines[0]) > 1000:
        return f"it said {outcome.err[:500]!r}"
    if not unknown and status == 3 and outcome.document()["error"]["code"] == "CKF301":
        return f"it was not recognised: {lines[0]}"
    return None


def digests(tensors: Mapping[str, tuple[str, list[int], bytes]]) -> dict[str, list[Any]]:
    """What the server's `read` prints for tensors of a dtype, a shape and bytes."""
    return {key: [dtype, shape, sha256(data).hexdigest()] for key, (dtype, shape, data) in tensors.items()}


class Tally:
    """Counts inputs, and keeps the worst of what they cost and what went wrong."""

    def __init__(self) -> None:
        self.inputs = 0
        self.seconds = 0.0
        self.megabytes = 0.0
        self.faults: list[str] = []

    def add(self, name: str, outcome: Outcome, fault: str | None) -> None:
        """Take in one input."""
        self.inputs += 1
        self.seconds = max(self.seconds, outcome.cpu)
        self.megabytes = max(self.megabytes, outcome.megabytes)
        if fault is not None:
            self.faults.append(f"{name}: {fault}")

    def numbers(self) -> dict[str, float]:
        """Give what is recorded."""
        return {
            "inputs": self.inputs,
            "seconds": round(self.seconds, 3),
            "slowness": round(slowness(), 2),
            "megabytes": round(self.megabytes, 1),
        }
