"""What every checkpoint format turns a file into: inert values, and tensors that know where their bytes lie.

A format module defines one subclass of `Format`. It reads headers only: nothing of a file is executed, no
tensor is loaded, and torch is not imported. `Reader` is the one place where tensor bytes are read.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal

from ckptfix.errors import AccessFailed, CorruptTensor, ReadFailed, SourceNotFound, TruncatedFile
from ckptfix.tensors import DType, TensorSpec

CHUNK = 1 << 20
"""Bytes read or written at once. One mebibyte is as fast as any larger size, and steadier."""


@dataclass(frozen=True)
class Storage:
    """A run of bytes in a file that one or more tensors view.

    `offset` and `stored_nbytes` say where the run lies in the file, `nbytes` how long it is once decoded; they
    differ only for `deflate`. `crc32` is the checksum of the decoded run where the format keeps one.
    """

    path: Path
    offset: int
    nbytes: int
    stored_nbytes: int
    encoding: Literal["raw", "deflate"] = "raw"
    byteorder: Literal["little", "big"] = "little"
    crc32: int | None = None


@dataclass(frozen=True)
class TensorRef:
    """A tensor in a file: a strided view of a storage. `offset` and `stride` count elements.

    The constructor of a ref has already checked that the view lies inside the storage. `lazy` names a bit that
    torch applies on reading (`conj`, `neg`).
    """

    spec: TensorSpec
    storage: Storage
    offset: int
    stride: tuple[int, ...]
    lazy: frozenset[Literal["conj", "neg"]] = frozenset()

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie end to end, outermost axis first."""
        expected = 1
        for extent, stride in zip(reversed(self.spec.shape), reversed(self.stride), strict=True):
            if extent == 0:
                return True
            if extent > 1 and stride != expected:
                return False
            expected *= extent
        return True


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the strides, in elements, of a contiguous tensor."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


@dataclass(frozen=True)
class Opaque:
    """A value that the file would have made by calling code: its name and its arguments, never the code.

    `module` and `name` are what unpickling would have imported; `args` and `state` hold inert values, so that
    tensors inside stay reachable.
    """

    module: str
    name: str
    args: Node = ()
    state: Node = None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Pairs:
    """A mapping as the file holds it: pairs in order, with keys that are never hashed or compared."""

    items: list[tuple[Node, Node]] = field(default_factory=list)


Node = (
    TensorRef | Opaque | Pairs | list["Node"] | tuple["Node", ...] | str | bytes | int | float | complex | bool | None
)
"""An inert value of a file. Sets are lists, byte arrays are bytes."""


@dataclass(frozen=True)
class Contents:
    """All that a file's headers say: the root value, text metadata, and the opaque values with their places."""

    path: Path
    format: str
    root: Node
    metadata: Mapping[str, str] = field(default_factory=dict)
    opaque: tuple[tuple[str, Opaque], ...] = ()


class Format(ABC):
    """One file format. `name` is what reports call it."""

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell from the first 512 bytes whether the file claims to be of this format."""

    @abstractmethod
    def open(self, path: Path) -> Contents:
        """Read the headers.

        Raises TruncatedFile, MalformedFile or LimitExceeded for a file that breaks the format's rules.
        """


class File:
    """A source file opened for `pread`, which notices when the file changes underneath."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise access_error(path, error) from error
        self._stat = os.fstat(self._fd)

    @property
    def size(self) -> int:
        """The file's length in bytes when it was opened."""
        return self._stat.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes. Raises TruncatedFile where the file is too short, ReadFailed else."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as error:
                raise access_error(self.path, error) from error
            if not part:
                raise TruncatedFile(
                    f"ends at byte {offset} where {length} more are needed",
                    where=str(self.path),
                    hint="download or copy the file again",
                )
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check_unchanged(self) -> None:
        """Raise ReadFailed where the file's length or time of change is no longer what it was."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise ReadFailed("changed while it was read", where=str(self.path), hint="run again once it is whole")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def access_error(path: Path, error: OSError) -> AccessFailed:
    """Translate a failed system call on a source."""
    if isinstance(error, FileNotFoundError):
        return SourceNotFound("no such file", where=str(path))
    return ReadFailed((error.strerror or str(error)).lower(), where=str(path))


class Reader:
    """Reads the bytes of tensors, one at a time: little-endian, contiguous, checked where a checksum is kept."""

    def __init__(self) -> None:
        self._files: dict[Path, File] = {}

    def chunks(self, ref: TensorRef) -> Iterator[bytes]:
        """Give the tensor's bytes in chunks of at most CHUNK.

        Raises CorruptTensor where the storage's checksum does not match.
        """
        if ref.spec.nbytes == 0:
            return
        if ref.is_contiguous and not ref.lazy and ref.storage.byteorder == "little":
            itemsize = ref.spec.dtype.bits // 8 or 1
            start = ref.offset * itemsize
            yield from self._decode(ref.storage, start, start + ref.spec.nbytes)
        else:
            data = _gather(b"".join(self._decode(ref.storage, 0, ref.storage.nbytes)), ref)
            for start in range(0, len(data), CHUNK):
                yield data[start : start + CHUNK]

    def read(self, ref: TensorRef) -> bytearray:
        """Give the tensor's bytes as one writable buffer."""
        data = bytearray()
        for chunk in self.chunks(ref):
            data += chunk
        return data

    def check_unchanged(self) -> None:
        """Raise ReadFailed where a file that was read has changed since it was opened."""
        for file in self._files.values():
            file.check_unchanged()

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, path: Path) -> File:
        if path not in self._files:
            self._files[path] = File(path)
        return self._files[path]

    def _decode(self, storage: Storage, start: int, stop: int) -> Iterator[bytes]:
        """Give bytes `start` to `stop` of the decoded storage; the checksum is tested when all of it passes."""
        chunks = self._inflate(storage) if storage.encoding == "deflate" else self._raw(storage, start, stop)
        position = 0 if storage.encoding == "deflate" else start
        whole = storage.encoding == "deflate" or (start == 0 and stop == storage.nbytes)
        crc = 0
        for chunk in chunks:
            if whole and storage.crc32 is not None:
                crc = zlib.crc32(chunk, crc)
            low, high = max(start - position, 0), min(stop - position, len(chunk))
            position += len(chunk)
            if low < high:
                yield chunk if (low, high) == (0, len(chunk)) else chunk[low:high]
        if whole and storage.crc32 is not None and crc != storage.crc32:
            raise CorruptTensor(
                f"the bytes at {storage.offset} have CRC-32 {crc:08x}, the file says {storage.crc32:08x}",
                where=str(storage.path),
                hint="the file is damaged: download or copy it again",
            )

    def _raw(self, storage: Storage, start: int, stop: int) -> Iterator[bytes]:
        file = self._file(storage.path)
        for position in range(start, stop, CHUNK):
            yield file.read(storage.offset + position, min(CHUNK, stop - position))

    def _inflate(self, storage: Storage) -> Iterator[bytes]:
        file = self._file(storage.path)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        produced = 0
        for position in range(0, storage.stored_nbytes, CHUNK):
            packed = file.read(storage.offset + position, min(CHUNK, storage.stored_nbytes - position))
            while packed:
                try:
                    chunk = inflater.decompress(packed, CHUNK)
                except zlib.error as error:
                    raise CorruptTensor(f"broken deflate stream: {error}", where=str(storage.path)) from error
                produced += len(chunk)
                if produced > storage.nbytes:
                    raise CorruptTensor(
                        f"a deflated entry holds more than the {storage.nbytes} bytes it declares",
                        where=str(storage.path),
                    )
                if chunk:
                    yield chunk
                packed = inflater.unconsumed_tail
        if produced != storage.nbytes:
            raise CorruptTensor(
                f"a deflated entry holds {produced} bytes and declares {storage.nbytes}",
                where=str(storage.path),
            )


def _gather(data: bytes, ref: TensorRef) -> bytes:
    """Lay a strided, byte-swapped or lazily conjugated view out contiguously, little-endian."""
    import numpy as np

    dtype = ref.spec.dtype
    itemsize = dtype.bits // 8
    element = np.dtype(f"V{itemsize}") if itemsize > 1 else np.dtype("u1")
    base = np.frombuffer(data, element, offset=ref.offset * itemsize)
    view = np.lib.stride_tricks.as_strided(
        base, ref.spec.shape, tuple(step * itemsize for step in ref.stride), writeable=False
    )
    flat = np.ascontiguousarray(view).reshape(-1)
    parts = 2 if dtype.kind == "complex" else 1
    if ref.storage.byteorder == "big" and itemsize > 1:
        flat = flat.view(f"V{itemsize // parts}").view(f">u{itemsize // parts}").astype(f"<u{itemsize // parts}")
    if ref.lazy:
        numbers = flat.view(_NUMPY_NUMBERS[dtype]).copy()
        if "conj" in ref.lazy:
            numbers = np.conj(numbers)
        if "neg" in ref.lazy:
            numbers = -numbers
        flat = numbers
    return flat.tobytes()


_NUMPY_NUMBERS = {
    DType.F16: "<f2",
    DType.F32: "<f4",
    DType.F64: "<f8",
    DType.C64: "<c8",
    DType.C128: "<c16",
}
