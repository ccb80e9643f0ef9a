"""Where everything of an output file goes, fixed before a byte is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct


class Slot(Struct, frozen=True):
    """The place of a tensor in a frame."""

    key: str


Places = Mapping[str, tuple[str, int]]
"""Where the bytes of outputs lie in the source, as far as they are moved: a file, and an offset in it."""

Frame = Slot | dict[str | int, "Frame"] | list["Frame"] | tuple["Frame", ...] | str | int | float | bool | None
"""What lies around the tensors of a file that holds more than one flat state dict: containers and plain values."""


class FileLayout(ABC):
    """The places of an output file.

    `nbytes` is its whole length and `offsets` the byte at which each tensor goes; keys that share their bytes with
    another are not in it. `checksums` says whether `seal` wants the CRC-32 of each tensor. `marks` is the metadata
    that the format itself adds: it is read back beside what `lay_out` was given.
    """

    nbytes: int
    offsets: Mapping[str, int]
    checksums: bool
    marks: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give all bytes that are no tensor's, with their offsets. The receipt is as long as the one planned with."""
