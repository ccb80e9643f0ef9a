"""Checkpoints that are long and take no room: holes in a file, with a number here and there."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from ckptfix.digest import crc32
from ckptfix.formats import output_format
from ckptfix.formats.base import CHUNK
from ckptfix.tensors import DType, TensorSpec

MARKS = 64
"""Numbers of each tensor that are not zero."""


def marks(spec: TensorSpec) -> Iterator[tuple[int, float]]:
    """Give the places, counted in elements, and the numbers there: the first and the last, and some in between."""
    for number in range(MARKS):
        yield (spec.numel - 1) * number // (MARKS - 1), float(number + 1)


def write_sparse(path: Path, tensors: Mapping[str, TensorSpec]) -> None:
    """Write F32 tensors with marks, and true checksums where the format has any."""
    layout = output_format(path).lay_out(tensors, {key: key for key in tensors}, {}, "{}")
    with path.open("w+b") as file:
        fd = file.fileno()
        file.truncate(layout.nbytes)
        found = dict.fromkeys(tensors, 0)
        for key, offset in layout.offsets.items():
            spec = tensors[key]
            assert spec.dtype is DType.F32
            for place, value in marks(spec):
                os.pwrite(fd, struct.pack("<f", value), offset + 4 * place)
            if layout.checksums:
                for start in range(0, spec.nbytes, CHUNK):
                    found[key] = crc32(os.pread(fd, min(CHUNK, spec.nbytes - start), offset + start), found[key])
        for offset, data in layout.seal("{}", found):
            os.pwrite(fd, data, offset)
