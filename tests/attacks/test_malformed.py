"""Broken containers: each ends with exit 3 and one line, at once, without a tensor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trust import record

from .harness import Server, Tally, listing, refusal_fault
from .malformed import FAMILIES

LEAST = 150


@pytest.mark.parametrize("family", FAMILIES)
def test_is_refused(family: str, server: Server, tmp_path: Path) -> None:
    tally = Tally()
    for case in FAMILIES[family]:
        folder = tmp_path / str(tally.inputs)
        folder.mkdir()
        path = case.put(folder)
        before = listing(folder)
        outcome = server.run(folder, ["ckptfix", "inspect", str(path), "--json"], ["read", str(path)])
        fault = refusal_fault(outcome, case.status, case.unknown)
        if fault is None and listing(folder) != before:
            fault = "it left something in its folder"
        tally.add(case.name, outcome, fault)
        shutil.rmtree(folder)
    record(f"attacks-malformed-{family}", **tally.numbers())
    assert not tally.faults, "\n".join(tally.faults)


def test_there_are_enough_and_no_two_are_called_alike() -> None:
    names = [(family, case.name) for family, cases in FAMILIES.items() for case in cases]
    assert len(names) >= LEAST
    assert len(set(names)) == len(names)
