"""Fill the page about what is promised with the numbers that the last run of the tests recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from ckptfix.formats import list_formats
from tests.trust import FOLDER

TEMPLATE = Path(__file__).with_name("template.md")

Numbers = Mapping[str, Any]
"""What one test recorded: numbers, and text."""

_HEAD = (
    "| format | inputs | read | refused | messages | longest | memory |\n| --- | --- | --- | --- | --- | --- | --- |\n"
)


def page() -> str:
    """Write the page. Raises LookupError where a run has left no numbers."""
    attacks, fuzz, kills = _under("attacks-"), _under("fuzz-"), _under("kills-")
    slowest = max(attacks, key=lambda one: float(one["seconds"]))
    outputs = [one for one in _under("flips-") if "verify" in one]
    rows = {known.name: _one(f"fuzz-{known.name.replace(' ', '-')}") for known in list_formats()}
    return fill(
        {
            "malformed": _sum(_under("attacks-malformed-"), "inputs"),
            "malicious": _sum(_under("attacks-malicious-"), "inputs"),
            "recipes": _one("attacks-recipes")["inputs"],
            "attack_seconds": slowest["seconds"],
            "attack_slowness": slowest["slowness"],
            "attack_megabytes": round(max(one["megabytes"] for one in attacks)),
            "mutations": _sum(fuzz, "mutations"),
            "fuzz_seconds": max(one["seconds"] for one in fuzz),
            "fuzz_megabytes": round(max(one["megabytes"] for one in fuzz)),
            "compared": sum(sum(n for n in one.values() if isinstance(n, int)) for one in _under("compared-")),
            "same": _sum(_under("compared-"), "same_tensors"),
            "seed": fuzz[0]["seed"],
            "output_flips": _sum(outputs, "flips"),
            "output_refused": _sum(outputs, "refused"),
            "output_verify": _sum(outputs, "verify"),
            "input_flips": _sum(_under("flips-of-inputs-"), "flips"),
            "input_refused": _sum(_under("flips-of-inputs-"), "refused"),
            "input_unused": _sum(_under("flips-of-inputs-"), "unused_bits"),
            "kills": sum(one.get("kills", one.get("old", 0) + one.get("new", 0)) for one in kills),
            "killed": _sum(kills, "killed"),
            "interrupts": _sum(_under("interrupts-"), "interrupted"),
            "limited_sizes": _sum(_under("limited-"), "sizes"),
            "full_sizes": _sum(_under("full-"), "sizes"),
            "changing": sum(one["whole"] + one["error"] for one in _under("changing-")),
        },
        rows,
    )


def fill(numbers: Numbers, rows: Mapping[str, Numbers]) -> str:
    """Put the numbers into the template, and those of each format into its table."""
    shown = {name: _show(number) for name, number in numbers.items()}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(shown, table=_HEAD + "".join(_rows(rows)).rstrip())


def _rows(rows: Mapping[str, Numbers]) -> Iterable[str]:
    for name, row in sorted(rows.items()):
        counts = " | ".join(_show(row[column]) for column in ("mutations", "read", "refused", "messages"))
        yield f"| {name} | {counts} | {_show(row['seconds'])} s | {_show(row['megabytes'])} MB |\n"


def _show(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int | float) else str(number)


def _under(prefix: str) -> list[Numbers]:
    found = [json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"{prefix}*.json"))]
    if not found:
        raise LookupError(f"no run has recorded '{prefix}*' in {FOLDER}: `make test` does")
    return found


def _one(name: str) -> Numbers:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        raise LookupError(f"no run has recorded '{name}' in {FOLDER}: `make test` does")
    found: Numbers = json.loads(path.read_text())
    return found


def _sum(numbers: Iterable[Numbers], name: str) -> int:
    return sum(one[name] for one in numbers)
