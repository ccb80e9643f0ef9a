"""The benchmark's own pieces: what it runs in turn, what it counts as memory, and whose output it calls wrong."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.speed.checkpoints import FORMS, LAYERS, SHARDS, fused, llama, make, single, small
from benchmarks.speed.measure import FEW, LONG, CommandFailed, Lane, Result, Run, peak_memory, race, run
from benchmarks.speed.outputs import difference, read
from benchmarks.speed.page import bars_table, write_page
from benchmarks.speed.rows import BARE, CP, LOAD_FILE, MB, NO_DIGEST, Bar, Contender, Growth, Row, growths, rows
from benchmarks.speed.running import Course, Finished
from benchmarks.speed.scripts.edits import EDITS
from benchmarks.speed.tools import PEERS, RECIPES, find_tools

SIZE = 3_000_000
HOLD = "held = bytearray({}); held[::4096] = b'1' * len(held[::4096]); import time; time.sleep(0.2)"


def lane(name: str, log: Path, *, sleep: float = 0.0, wrong: str | None = None) -> Lane:
    command = ["sh", "-c", f"echo {name} >> {log}; sleep {sleep}"]
    return Lane(name, command, lambda: wrong, lambda: None)


def test_lanes_run_in_turn_and_slow_ones_leave(tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = race([lane("a", log), lane("b", log), lane("slow", log, sleep=LONG + 0.1)], FEW + 1)
    assert log.read_text().split() == ["a", "b", "slow"] * (FEW + 1) + ["a", "b"]
    assert [len(result.runs) for result in results] == [FEW + 1, FEW + 1, FEW]
    assert results[2].seconds > 0.5 > results[2].cpu


def test_what_fails_or_writes_something_wrong_is_not_timed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    broken = Lane(
        "broken", ["sh", "-c", "echo first >&2; echo at /a/folder/last >&2; exit 3"], lambda: None, lambda: None
    )
    results = race([lane("a", log), broken, lane("wrong", log, wrong="wrong output")], 2)
    assert [(result.failure, len(result.runs)) for result in results] == [
        (None, 2),
        ("exit status 3: at last", 0),
        ("wrong output", 0),
    ]
    with pytest.raises(CommandFailed, match="exit status 3: at last"):
        run(broken.command)


def test_memory_is_that_of_all_processes_without_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(50 * MB))
    mapped = f"import mmap; f = open({str(file)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); m[::4096]"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD.format(40 * MB)!r}])"
    assert 40 * MB < peak_memory([sys.executable, "-c", HOLD.format(40 * MB)]) < 60 * MB
    assert 40 * MB < peak_memory([sys.executable, "-c", child]) < 75 * MB
    assert peak_memory([sys.executable, "-c", mapped]) < 25 * MB
    forked = HOLD.format(40 * MB).replace("import time", "import os, time; os.fork()")
    assert 40 * MB < peak_memory([sys.executable, "-c", forked]) < 60 * MB


@pytest.mark.parametrize("form", FORMS)
def test_the_checkpoint_is_the_same_in_every_form(form: str, tmp_path: Path) -> None:
    checkpoint = llama(SIZE)
    path = make(checkpoint, form, tmp_path)
    tensors = read(path)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == dict(checkpoint.shapes)
    assert len(tensors) == 9 * LAYERS + 3 == 300
    assert sum(tensor.nbytes for tensor in tensors.values()) == pytest.approx(SIZE, rel=0.3)
    assert difference(path, make(checkpoint, "safetensors", tmp_path), "same") is None
    if form == "shards":
        assert len(list(path.glob("*.safetensors"))) == SHARDS


def test_sizes_are_met() -> None:
    for checkpoint in (llama(2 * 10**9), fused(2 * 10**9), single(2 * 10**9)):
        assert 4 * sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values()) == pytest.approx(
            2e9, rel=0.02
        )
    assert len(small(20_000).shapes) == 20_000


def test_an_output_is_compared_to_the_bit(tmp_path: Path) -> None:
    source = make(llama(SIZE), "safetensors", tmp_path)
    want = EDITS["rename"](load_file(source))
    out, key = tmp_path / "out.safetensors", "blocks.7.mlp.up_proj.weight"

    def said(tensors: dict[str, torch.Tensor]) -> str | None:
        save_file(tensors, out)
        return difference(out, source, "rename")

    flipped = want[key].clone()
    flipped.view(torch.uint8)[3, 5] ^= 1
    assert difference(out, source, "rename") == "wrote nothing"
    assert said(want) is None
    assert said({**want, key: flipped}) == f"wrong output: {key} differs"
    assert said({**want, "more": flipped}) == "wrong output: has more"
    assert said({other: want[other] for other in want if other != key}) == f"wrong output: lacks {key}"


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    scratch = tmp_path_factory.mktemp("scratch")
    return Course(scratch, find_tools(scratch, ()), runs=1)


@pytest.mark.parametrize("name", ["rename", "pth", "split", "cast", "shards", "plan"])
def test_the_commands_do_what_the_row_says(name: str, course: Course) -> None:
    row = next(row for row in rows(SIZE) if row.name == name)
    ours = [one for one in row.contenders if not one.needs and "pretrained" not in one.command]
    finished = course.run(replace(row, contenders=ours))
    assert {result.name: result.failure for result in finished.results.values()} == {one.name: None for one in ours}
    assert all(finished.results[one.name].memory > MB for one in ours if one.name.startswith("ckptfix"))


def test_a_peer_that_is_not_there_is_shown_with_the_reason(course: Course) -> None:
    there = replace(course, tools=replace(course.tools, missing={"mergekit": "not installable: no such thing"}))
    row = Row("x", "X", llama(SIZE), [CP, Contender("mergekit-yaml", "{mergekit}", needs="mergekit")], [], edit="same")
    assert there.run(row).results["mergekit-yaml"].failure == "not installable: no such thing"


def test_bars_are_met_or_not() -> None:
    bars = [Bar(NO_DIGEST, ratio=1.15, memory=30 * MB), Bar(NO_DIGEST, seconds=2.5)]
    row = Row("x", "X", llama(SIZE), [CP, BARE, LOAD_FILE], bars)
    taken = {CP.name: (2.0, 1), NO_DIGEST: (2.4, 20 * MB), LOAD_FILE.name: (8.0, 300 * MB)}
    results = {name: Result(name, (Run(seconds, 1.0),), memory) for name, (seconds, memory) in taken.items()}
    lines = [re.split(r" *\| *", line)[2:5] for line in bars_table([Finished(row, results)]).splitlines()[2:]]
    assert [(line[0][:2], line[2]) for line in lines] == [("\u2264 ", "**no**"), ("\u2264 ", "yes"), ("\u2264 ", "yes")]
    assert lines[0][1].startswith("1.20") and lines[1][1] == "20 MB" and lines[2][1] == "2.40 s"
    failed = {**results, NO_DIGEST: Result(NO_DIGEST, failure="exit status 4: no")}
    assert "exit status 4: no | **no** | load_file + save_file, 4.00" in bars_table([Finished(row, failed)])


def test_the_page_has_every_row_and_its_charts(course: Course, tmp_path: Path) -> None:
    row = Row("x", "Copy it", llama(SIZE), [CP, replace(CP, name="cp again")], [], edit="same")
    chart = Growth("sizes", "Time against sizes", "GB", [(1.0, llama(SIZE)), (2.0, llama(2 * SIZE))])
    finished = course.run(row)
    write_page(tmp_path / "page.md", course, [finished], [(chart, [finished, finished])])
    text = (tmp_path / "page.md").read_text()
    assert "### Copy it" in text and "cp again | " in text and str(tmp_path) not in text
    pictures = re.findall(r"\]\((page/\w+\.png)\)", text)
    assert pictures == ["page/ratios.png", "page/sizes.png"]
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_rows_name_what_there_is() -> None:
    for row in (*rows(SIZE), *(point for chart in growths(SIZE) for point in chart.rows())):
        names = [one.name for one in row.contenders]
        assert len(set(names)) == len(names)
        assert {bar.contender for bar in row.bars} <= set(names)
        assert {one.form for one in row.contenders} <= set(row.forms) <= set(FORMS)
        assert {one.needs for one in row.contenders} <= {"", *PEERS}
        assert not row.edit or (row.edit in EDITS and (RECIPES / f"{row.recipe or row.edit}.yaml").exists())
