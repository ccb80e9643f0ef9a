"""What every checkpoint format turns a file into: inert values, and tensors that know where their bytes lie.

A format module defines one subclass of `Format`. It reads headers only: nothing of a file is executed, no
tensor is loaded, and torch is not imported. `Reader` is the one place where tensor bytes are read.
"""

from ckptfix.formats.base.beside import file_beside, is_index, lacking
from ckptfix.formats.base.file import BLOCK, CHUNK, File, Stamp, Window, access_error, inflate, is_folder, narrow
from ckptfix.formats.base.format import Contents, Format, ShardedFormat
from ckptfix.formats.base.joined import Chunks, Joined, Piece
from ckptfix.formats.base.json_object import is_unicode, read_json_object
from ckptfix.formats.base.output import FileLayout, Frame, Places, Slot
from ckptfix.formats.base.ranges import Range, ranges_of
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
    "BLOCK",
    "CHUNK",
    "MAX_NBYTES",
    "MAX_RANK",
    "Chunks",
    "Contents",
    "File",
    "FileLayout",
    "Format",
    "Frame",
    "Joined",
    "Node",
    "Opaque",
    "Pairs",
    "Piece",
    "Places",
    "Range",
    "Reader",
    "ShardedFormat",
    "Slot",
    "Stamp",
    "Storage",
    "TensorRef",
    "Window",
    "access_error",
    "check_shape",
    "contiguous_stride",
    "file_beside",
    "inflate",
    "is_folder",
    "is_index",
    "is_unicode",
    "lacking",
    "narrow",
    "ranges_of",
    "read_json_object",
]
