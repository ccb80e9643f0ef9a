"""A hostile input: what lies in its folder, and which of it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """`make` gives the bytes of the one file, or puts what is needed into a folder itself."""

    name: str
    file: str
    make: Callable[[], bytes] | Callable[[Path], None]
    unknown: bool = False
    """Whether it is right to say that the format is none that is read."""
    status: int = 3

    def put(self, folder: Path) -> Path:
        """Make the input in an empty folder, and give what is to be opened."""
        path = folder / self.file
        if self.make.__code__.co_argcount > len(self.make.__defaults__ or ()):
            self.make(folder)  # type: ignore[call-arg]
        else:
            path.write_bytes(self.make())  # type: ignore[call-arg]
        return path
