"""Where everything of an output file goes, fixed before a byte is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping


class FileLayout(ABC):
    """The places of an output file.

    `nbytes` is its whole length and `offsets` the byte at which each tensor goes; keys that share their bytes with
    another are not in it. `checksums` says whether `seal` wants the CRC-32 of each tensor.
    """

    nbytes: int
    offsets: Mapping[str, int]
    checksums: bool

    @abstractmethod
    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give all bytes that are no tensor's, with their offsets. The receipt is as long as the one planned with."""
