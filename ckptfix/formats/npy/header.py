"""The header of an array of numpy: numpy/lib/format.py ("NEP 1")."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from ckptfix.errors import LimitExceeded, MalformedFile, TruncatedFile
from ckptfix.formats.base import check_shape, read_json_object
from ckptfix.formats.pickle.arrays import ELEMENTS
from ckptfix.tensors import DType, Shape

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
"""Bytes of a header: the limit of numpy itself."""

HEAD = 12 + _MAX_HEADER
"""Bytes that hold any header, and what stands before it."""

_FIELDS = {"descr", "fortran_order", "shape"}


class Header(Struct, frozen=True):
    """The header of one array. `nbytes` counts all that lies before the elements."""

    descr: object
    fortran: bool
    shape: Shape
    nbytes: int

    @classmethod
    def read(cls, head: bytes) -> Header:
        """Read it from the first bytes of an array. Raises MalformedFile, LimitExceeded or TruncatedFile."""
        if not head.startswith(_MAGIC):
            raise MalformedFile("is named like an array of numpy and does not begin like one")
        version, width = head[6:8], 2 if head[6:7] == b"\1" else 4
        if version not in (b"\1\0", b"\2\0", b"\3\0"):
            raise MalformedFile(f"has a header of numpy of the unknown version {version.hex('.')}")
        length = int.from_bytes(head[8 : 8 + width], "little")
        if length > _MAX_HEADER:
            raise LimitExceeded(f"has a header of numpy of {length} bytes, {_MAX_HEADER} are allowed")
        raw = head[8 + width : 8 + width + length]
        if len(raw) < length:
            raise TruncatedFile("ends inside the header of numpy", hint="download or copy the file again")
        fields = _parse(raw, "utf-8" if version == b"\3\0" else "latin-1")
        fortran = fields["fortran_order"]
        if not isinstance(fortran, bool):
            raise MalformedFile("has a header of numpy whose fortran_order is neither True nor False")
        return cls(fields["descr"], fortran, check_shape(fields["shape"]), 8 + width + length)

    @property
    def holds_objects(self) -> bool:
        return self.descr in ("O", "|O")

    @property
    def element(self) -> tuple[DType, Literal["little", "big"]] | None:
        """The dtype and byte order of the elements; None where they are no numbers that a tensor has."""
        descr = self.descr
        if not isinstance(descr, str) or descr[:1] not in ("<", ">", "|") or descr[1:] not in ELEMENTS:
            return None
        return ELEMENTS[descr[1:]], "big" if descr.startswith(">") else "little"

    @property
    def holds_text(self) -> bool:
        return isinstance(self.descr, str) and self.descr[1:2] in ("U", "S")


_AS_JSON = str.maketrans("'()", '"[]')
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}


def _parse(raw: bytes, encoding: str) -> dict[str, object]:
    """Read the header, a literal of Python, as the JSON that it becomes with other brackets: nothing is compiled."""
    try:
        text = raw.decode(encoding).strip().translate(_AS_JSON)
        # Python 2 wrote its long integers with an L.
        text = re.sub(r"\b(\d+)L\b", r"\1", text)
        text = re.sub(r"\b(True|False|None)\b", lambda found: _CONSTANTS[found[0]], text)
        fields = read_json_object(re.sub(r",\s*([\]}])", r"\1", text), "the header of numpy")
    except (ValueError, MalformedFile) as error:
        raise MalformedFile("has a header of numpy that is no Python literal of a mapping") from error
    if fields.keys() != _FIELDS:
        raise MalformedFile("has a header of numpy without exactly descr, fortran_order and shape")
    return fields
