"""A sound checkpoint of one file or several, as fuzzing takes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

Files = dict[str, bytes]


@dataclass(frozen=True)
class Specimen:
    """The files of one sound checkpoint, by name, and which of them is opened; "." is their folder."""

    opened: str
    files: Files

    def put(self, folder: Path) -> None:
        """Write it into an empty folder, where `get` finds it."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        (folder.parent / f"{folder.name}.json").write_text(json.dumps(self.opened))

    @classmethod
    def get(cls, folder: Path) -> Specimen:
        """Read what `put` wrote."""
        opened = json.loads((folder.parent / f"{folder.name}.json").read_text())
        return cls(opened, {path.name: path.read_bytes() for path in sorted(folder.iterdir())})
