"""The oldest checkpoints of torch, from its first releases: tar archives (`formats/legacy/tar.py`)."""

from __future__ import annotations

from pathlib import Path

from ckptfix.formats.base import Contents, File, Format


class TorchTar(Format):
    """One tar archive of the first releases."""

    name = "torch tar"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the signature in the first header, POSIX's or GNU's."""
        return head[257:262] == b"ustar"

    def open(self, path: Path) -> Contents:
        """Read all but the elements. Raises UnknownFormat for other tar archives."""
        from ckptfix.formats.legacy.tar import read_tar

        with File(path) as file:
            root, opaque = read_tar(file)
        return Contents(path, self.name, root, opaque=opaque)
