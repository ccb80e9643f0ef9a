"""Run a row: make its files, fill the commands, race them, and look at what they wrote."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.speed.checkpoints import make, write_target
from benchmarks.speed.disk import SMALL, NoDisk, disk
from benchmarks.speed.measure import Lane, Result, race
from benchmarks.speed.outputs import difference
from benchmarks.speed.rows import Contender, Row
from benchmarks.speed.tools import RECIPES, Tools

CHUNK = 1 << 22


@dataclass(frozen=True)
class Finished:
    """A row and what became of its contenders, in the row's order."""

    row: Row
    results: Mapping[str, Result]

    def ratio(self, name: str) -> float:
        """Give the median of a contender over that of the row's first."""
        return self.results[name].seconds / self.results[self.row.contenders[0].name].seconds

    def ran(self) -> list[str]:
        """Name the contenders that were timed."""
        return [name for name, result in self.results.items() if result.runs]


@dataclass(frozen=True)
class Course:
    """Where rows are run, with which tools, and how often each command is timed."""

    scratch: Path
    tools: Tools
    runs: int

    def run(self, row: Row) -> Finished:
        """Run a row. Contenders that are not installed or that fail are in the results, with the reason."""
        if not row.disk:
            return self._run(row)
        try:
            with disk(row.disk, self.scratch / row.disk, SMALL + 3 * row.checkpoint.nbytes) as place:
                return replace(self, scratch=place)._run(row)
        except NoDisk as error:
            return Finished(row, {one.name: Result(one.name, failure=str(error)) for one in row.contenders})

    def _run(self, row: Row) -> Finished:
        files = {form: make(row.checkpoint, form, self.scratch / "checkpoints") for form in row.forms}
        fields: dict[str, object] = {**files, "edit": row.edit, "recipe": RECIPES / f"{row.recipe or row.edit}.yaml"}
        fields["target"] = write_target(row.checkpoint, row.edit or "rename", self.scratch / "target.json")
        for file in files.values():
            _warm(file)
        _reset(self.scratch / "out")
        there = [one for one in row.contenders if one.needs not in self.tools.missing]
        results = {
            result.name: result
            for result in race([self._lane(row, one, files, fields) for one in there], self.runs * row.repeat)
        }
        for one in row.contenders:
            if one not in there:
                results[one.name] = Result(one.name, failure=self.tools.missing[one.needs])
        return Finished(row, {one.name: results[one.name] for one in row.contenders})

    def clear(self) -> None:
        """Delete the checkpoints that the rows so far have made; until then later rows use them again."""
        shutil.rmtree(self.scratch / "checkpoints", ignore_errors=True)

    def _lane(self, row: Row, one: Contender, files: Mapping[str, Path], fields: Mapping[str, object]) -> Lane:
        number = row.contenders.index(one)
        out, config = self.scratch / "out" / "model", self.scratch / f"config-{number}.yaml"
        fields = {**fields, "out": out, "config": config}
        config.write_text(one.config.format(**fields))
        command = self.tools.command(one.command, fields)
        wrote, edit = out.with_name(f"{out.name}{one.wrote}"), one.edit or row.edit
        check = partial(difference, wrote, files[one.form], edit) if row.edit else lambda: None
        return Lane(one.name, command, check, partial(_reset, out.parent))


def _reset(folder: Path) -> None:
    """Empty the folder of outputs, and leave the disk without work."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()


def _warm(path: Path) -> None:
    """Read a file, or the files of a folder, so that they are in the cache."""
    for file in [path] if path.is_file() else path.iterdir():
        with file.open("rb") as stream:
            while stream.read(CHUNK):
                pass
