"""Bytes in memory that are read as a file is."""

from __future__ import annotations

from pathlib import Path

from ckptfix.errors import TruncatedFile
from ckptfix.formats.base import File


class Memory(File):
    """What was unpacked from a file, or copied out of a pickle in it. It has no state to check and closes nothing."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self._data = data

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Give exactly `length` bytes. Raises TruncatedFile where there are fewer."""
        if offset + length > len(self._data):
            raise TruncatedFile(f"ends at byte {len(self._data)} where {offset + length} are needed")
        return self._data[offset : offset + length]

    def check_unchanged(self) -> None:
        """Do nothing: nobody else has the bytes."""

    def close(self) -> None:
        """Do nothing."""
