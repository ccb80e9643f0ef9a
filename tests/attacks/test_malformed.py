"""Broken containers: each ends with exit 3 and one line, at once, without a tensor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.running import spawn
from tests.formats.making import safetensors_bytes
from tests.trust import record

from .archives import archive, deflated
from .harness import Server, Tally, breach_of, digests, listing, refusal_fault
from .malformed import FAMILIES, arrays, folders, legacy, zips

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
        searched = server.run(folder, ["ckptfix", "inspect", str(path), "--security", "--json"])
        fault = refusal_fault(outcome, case.status, case.unknown)
        fault = fault or breach_of(searched)
        # The search does not ask whether there is a state dict.
        if fault is None and searched.status not in (0, case.status):
            fault = f"it was searched with {searched.status}: {searched.err[:200]}"
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


def test_what_they_break_is_read_while_it_is_whole(server: Server, tmp_path: Path) -> None:
    numbers = digests({"w": ("F32", [4], zips.DATA)})
    whole = {
        "zip.pth": archive(zips.entries()),
        "zip64.pth": archive(zips.entries(), end64={}),
        "deflated.pth": archive([deflated(entry.name, entry.data) for entry in zips.entries()]),
        "legacy.pt": legacy.build(),
        "tar.pt": arrays.tar()(),
        "arrays.npz": arrays.npz(),
        "x.safetensors": safetensors_bytes({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, zips.DATA),
    }
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        outcome = server.run(tmp_path, ["read", str(tmp_path / name)])
        assert breach_of(outcome) is None, name
        assert outcome.document() == numbers, name
    folders.index()(tmp_path)
    outcome = server.run(tmp_path, ["read", str(tmp_path / folders.INDEX)])
    assert list(outcome.document()) == ["w"]


def test_the_command_itself_says_the_same(tmp_path: Path) -> None:
    for family, cases in FAMILIES.items():
        for case in cases[:: len(cases) // 3]:
            folder = tmp_path / f"{family}-{case.name[:20]}"
            folder.mkdir()
            path = case.put(folder)
            found = spawn("inspect", path, "--stats", cwd=folder)
            assert found.returncode == case.status, (family, case.name, found.stderr)
            assert found.stdout == "", (family, case.name)
            assert found.stderr.startswith(f"error: {path}: "), (family, case.name)
            assert found.stderr.count("\n") == 1, (family, case.name)
