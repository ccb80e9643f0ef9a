"""`.npz`, a zip archive of arrays by name, and a `.npy` that holds one object around arrays.

Format: numpy/lib/format.py ("NEP 1"). An array is the magic `\\x93NUMPY`, a version, the length of a header (2 bytes,
from version 2 on 4), the header, which is a Python dict of `descr`, `fortran_order` and `shape`, and the elements. An
array of objects holds a pickle instead; it is run as data, like any other (`formats/pickle`).
"""

from __future__ import annotations

from pathlib import Path

from ckptfix.formats.base import Contents, File, Format
from ckptfix.formats.zip.first import first_name


class Npz(Format):
    """One archive of `numpy.savez` or `savez_compressed`: the keys are the names of its members."""

    name = "npz"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the name of the first entry."""
        return (first_name(head) or "").endswith(".npy")

    def open(self, path: Path) -> Contents:
        """Read the directory and the header of each array."""
        from ckptfix.formats.npy.read import read_archive

        with File(path) as file:
            root, opaque, notes = read_archive(file)
        return Contents(path, self.name, root, opaque=opaque, notes=notes)


class Npy(Format):
    """One `.npy` of an object: `numpy.save(file, state_dict)`."""

    name = "npy"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the magic bytes."""
        return head.startswith(b"\x93NUMPY")

    def open(self, path: Path) -> Contents:
        """Read the pickle. Raises UnknownFormat where the file is an array, which has no key."""
        from ckptfix.formats.npy.read import read_object

        with File(path) as file:
            root, opaque = read_object(file)
        return Contents(path, self.name, root, opaque=opaque)
