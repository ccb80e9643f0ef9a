"""`.pth`, `.pt` and `.bin` as `torch.save` writes them since 1.6: a zip archive of one pickle and its storages.

Layout: torch/serialization.py (`_save`, `_load`) and caffe2/serialize/inline_container.cc. All entries lie under one
prefix: `data.pkl`, `byteorder`, and `data/KEY` for each storage, stored so that it can be mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ckptfix.formats.base import Contents, File, FileLayout, Format, Frame, Places, Slot
from ckptfix.formats.zip.first import first_name
from ckptfix.tensors import TensorSpec


class TorchZip(Format):
    """One file of `torch.save`, or a TorchScript archive's `data.pkl`."""

    name = "torch zip"
    suffixes = (".pth", ".pt", ".bin")

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the signature of a local header; the archives of numpy tell by the first name."""
        return head.startswith(b"PK\3\4") and not (first_name(head) or "").endswith(".npy")

    def open(self, path: Path) -> Contents:
        """Read the directory and the pickle. Raises UnknownFormat for other zip archives."""
        from ckptfix.formats.zip.saved import read_saved

        with File(path) as file:
            root, metadata, opaque = read_saved(file)
        return Contents(path, self.name, root, metadata, opaque)

    def lay_out(
        self,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
        places: Places = MappingProxyType({}),
    ) -> FileLayout:
        """Place one record for each tensor; keys that share a tensor share its storage."""
        from ckptfix.formats.zip.layout import ZipLayout

        return ZipLayout({key: Slot(key) for key in tensors}, tensors, shared, metadata, receipt)

    def lay_out_frame(
        self,
        frame: Frame,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
    ) -> FileLayout:
        """Place one record for each tensor, and the frame in the pickle."""
        from ckptfix.formats.zip.layout import ZipLayout

        return ZipLayout(frame, tensors, shared, metadata, receipt)
