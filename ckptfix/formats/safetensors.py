"""safetensors: an 8-byte length, a JSON header, then the tensors end to end.

Format: https://huggingface.co/docs/safetensors#format. The header fixes the place of every byte, so all that a
file may get wrong is found here, without reading a tensor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType

from ckptfix.errors import LimitExceeded, UnsupportedOutput
from ckptfix.formats.base import (
    Contents,
    File,
    FileLayout,
    Format,
    Node,
    Pairs,
    Places,
    Storage,
    TensorRef,
    is_unicode,
)
from ckptfix.formats.safetensors_header import DTYPES, read_header
from ckptfix.tensors import TensorSpec

MAX_HEADER = 100_000_000
"""Bytes of the JSON header: the limit of the safetensors library itself."""

_LAST = ("\U0010ffff", 0)
"""After every place: tensors that are not moved."""
_BLOCK = 4096
_WORTH_PADDING = 1 << 20
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Safetensors(Format):
    """One `.safetensors` file."""

    name = "safetensors"
    suffixes = (".safetensors",)

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the brace after the length, or by the name where the length is below 4 GiB, as it must be."""
        if head[8:9] == b"{":
            return b"\0" in head[:8]
        return path.suffix == ".safetensors" and head != b"" and not head[4:8].strip(b"\0")

    def open(self, path: Path) -> Contents:
        """Read the header. Raises TruncatedFile, MalformedFile or LimitExceeded."""
        with File(path) as file:
            length = int.from_bytes(file.read(0, 8), "little")
            if length > MAX_HEADER:
                raise LimitExceeded(f"the header declares {length} bytes, {MAX_HEADER} are allowed")
            spans, metadata = read_header(file.read(8, length), file.size - 8 - length)
        start = 8 + length
        tensors: list[tuple[Node, Node]] = [
            (key, TensorRef(spec, Storage(path, start + begin, nbytes, nbytes), 0, stride))
            for begin, _, key, (spec, nbytes, stride) in spans
        ]
        return Contents(path, self.name, Pairs(tensors), metadata)

    def lay_out(
        self,
        tensors: Mapping[str, TensorSpec],
        shared: Mapping[str, str],
        metadata: Mapping[str, str],
        receipt: str,
        places: Places = MappingProxyType({}),
    ) -> FileLayout:
        """Place wide elements first, so that each tensor is aligned, and those of one width in the order of the source.

        A tensor under two keys is written twice.
        """
        for key, spec in tensors.items():
            if str(spec.dtype) not in DTYPES:
                raise UnsupportedOutput(f"'{key}' is {spec.dtype}, which safetensors lacks", hint="write .pth, or cast")
            if key == "__metadata__" or not is_unicode(key):
                raise UnsupportedOutput(f"safetensors cannot have the key {key[:80]!r}", hint="rename it")
        for name, text in metadata.items():
            if not (is_unicode(name) and is_unicode(text)):
                raise UnsupportedOutput(f"safetensors cannot have the metadata {name!r}: it is not Unicode")
        return _Layout(tensors, metadata, receipt, places)


class _Layout(FileLayout):
    checksums = False
    marks = MappingProxyType({"format": "pt"})

    def __init__(
        self, tensors: Mapping[str, TensorSpec], metadata: Mapping[str, str], receipt: str, places: Places
    ) -> None:
        self._tensors = tensors
        self._metadata = metadata
        self._residue: int | None = None
        self._start = 0
        begins: dict[str, int] = {}
        position = 0
        for key in sorted(tensors, key=lambda key: (-tensors[key].dtype.bits, places.get(key, _LAST))):
            begins[key] = position
            position += tensors[key].nbytes
        self._residue = _residue(tensors, begins, places)
        self.offsets = begins
        start = sum(map(len, self._header(receipt)))
        if start - 8 > MAX_HEADER:
            raise UnsupportedOutput(
                f"the header takes {start - 8} bytes, safetensors allows {MAX_HEADER}", hint="write .pth"
            )
        self.offsets = {key: start + begin for key, begin in begins.items()}
        self._start = start
        self.nbytes = start + position

    def _header(self, receipt: str) -> list[bytes]:
        """Give the length and the JSON in parts: a header of many tensors is held once, never twice."""
        metadata = _to_json({**self.marks, **self._metadata, "ckptfix": receipt}).encode()
        parts = [b'{"__metadata__":', metadata, self._entries(), b"}"]
        nbytes = sum(map(len, parts))
        parts.append(b" " * (-nbytes % 8 if self._residue is None else (self._residue - 8 - nbytes) % _BLOCK))
        return [(nbytes + len(parts[-1])).to_bytes(8, "little"), *parts]

    def _entries(self) -> bytes:
        """Give the text of all tensors: no more is kept of one than its offset."""
        text = bytearray()
        kinds: dict[TensorSpec, str] = {}
        for key, offset in self.offsets.items():
            spec = self._tensors[key]
            kind = kinds.get(spec)
            if kind is None:
                kind = kinds[spec] = _to_json({"dtype": str(spec.dtype), "shape": spec.shape})[1:-1]
            begin = offset - self._start
            text += f',{_to_json(key)}:{{{kind},"data_offsets":[{begin},{begin + spec.nbytes}]}}'.encode()
        return bytes(text)

    def seal(self, receipt: str, crc32: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """Give the header."""
        offset = 0
        for part in self._header(receipt):
            yield offset, part
            offset += len(part)


def _residue(tensors: Mapping[str, TensorSpec], begins: Mapping[str, int], places: Places) -> int | None:
    """Choose where in a block the data begin, so that most bytes lie in their blocks as in the source's.

    The system moves whole blocks faster, or shares them. None for little data, or if that would leave 8-byte bounds.
    """
    moved: Counter[int] = Counter()
    for key, (_, start) in places.items():
        moved[(start - begins[key]) % _BLOCK] += tensors[key].nbytes
    residue, nbytes = max(moved.items(), key=itemgetter(1), default=(0, 0))
    return residue if nbytes >= _WORTH_PADDING and residue % 8 == 0 else None
