"""What a format module defines, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from msgspec import Struct, field

from ckptfix.errors import UnknownFormat, UnsupportedOutput
from ckptfix.formats.base.file import Stamp
from ckptfix.formats.base.output import FileLayout, Frame, Places
from ckptfix.formats.base.values import Node, Opaque
from ckptfix.tensors import TensorSpec


class Contents(Struct, frozen=True):
    """All that a file's headers say: the root value, text metadata, and the opaque values with their places."""

    path: Path
    format: str
    root: Node
    metadata: Mapping[str, str] = field(default_factory=dict)
    opaque: tuple[tuple[str, Opaque], ...] = ()
    notes: tuple[str, ...] = ()
    """What a user should know of how the file was read: nothing that keeps it from being read."""
    stamps: Mapping[Path, Stamp] = field(default_factory=dict)
    """The states in which the files were whose headers were read."""


class Format(ABC):
    """One file format. `name` is what reports call it."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    """The file names that this format is written under; empty where it is only read."""

    @abstractmethod
    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell from the first 512 bytes whether the file claims to be of this format."""

    @abstractmethod
    def open(self, path: Path) -> Contents:
        """Read the headers.

        Raises TruncatedFile, MalformedFile or LimitExceeded for a file that breaks the format's rules;
        `open_contents` attaches the path.
        """

    def lay_out(
        self,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
        places: Places = MappingProxyType({}),
    ) -> FileLayout:
        """Fix the place of everything in an output file. `receipt` is as long as the one that `seal` will be given.

        `shared` maps each key to the first key that holds the same tensor, itself where there is none. A format that
        may choose puts the tensors in the order of `places`. Raises UnsupportedOutput for what it cannot hold.
        """
        raise UnsupportedOutput(f"{self.name} files are read, not written")

    def lay_out_frame(
        self,
        frame: Frame,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
    ) -> FileLayout:
        """Do the same for a file in which the tensors lie inside one another's containers, as the frame says."""
        raise UnsupportedOutput(f"{self.name} files hold one flat state dict and nothing beside it", hint="write .pth")


class ShardedFormat(Format):
    """A file that only names others, each of a format of its own, which hold the tensors."""

    def open(self, path: Path) -> Contents:
        """Refuse: the other files are needed."""
        raise UnknownFormat(f"is a {self.name}, which is read with the files that it names")

    @abstractmethod
    def open_shards(self, path: Path, open_file: Callable[[Path], Contents]) -> Contents:
        """Read the file and the headers of those it names. `open_file` opens one of these.

        Raises what `open` raises, TruncatedFile where a file is missing.
        """
