"""What every checkpoint format turns a file into: inert values, and tensors that know where their bytes lie.

A format module defines one subclass of `Format`. It reads headers only: nothing of a file is executed, no
tensor is loaded, and torch is not imported. `Reader` is the one place where tensor bytes are read.
"""

from ckptfix.formats.base.file import CHUNK, File, access_error, inflate, narrow
from ckptfix.formats.base.format import Contents, Format
from ckptfix.formats.base.output import FileLayout, Frame, Slot
from ckptfix.formats.base.reader import Reader
from ckptfix.formats.base.values import (
    MAX_NBYTES,
    MAX_RANK,
    Node,
    Opaque,
    Pairs,
    Storage,
    TensorRef,
    check_shape,
    contiguous_stride,
)

__all__ = [
    "CHUNK",
    "MAX_NBYTES",
    "MAX_RANK",
    "Contents",
    "File",
    "FileLayout",
    "Format",
    "Frame",
    "Node",
    "Opaque",
    "Pairs",
    "Reader",
    "Slot",
    "Storage",
    "TensorRef",
    "access_error",
    "check_shape",
    "contiguous_stride",
    "inflate",
    "narrow",
]
