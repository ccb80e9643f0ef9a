"""Checkpoints of `torch.save` before 1.6: five pickles, then the storages (`formats/legacy/pickles.py`)."""

from __future__ import annotations

from pathlib import Path

from ckptfix.formats.base import Contents, File, Format
from ckptfix.formats.legacy.magic import is_legacy


class TorchLegacy(Format):
    """One file of `torch.save(..., _use_new_zipfile_serialization=False)`."""

    name = "torch legacy"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the magic number in the first pickle, binary or, in protocols 0 and 1, in decimal."""
        return is_legacy(head)

    def open(self, path: Path) -> Contents:
        """Read the five pickles and the counts that stand before the storages."""
        from ckptfix.formats.legacy.pickles import read_legacy

        with File(path) as file:
            root, opaque = read_legacy(file)
        return Contents(path, self.name, root, opaque=opaque)
