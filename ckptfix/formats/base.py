"""What every checkpoint format turns a file into: inert values, and tensors that know where their bytes lie.

A format module defines one subclass of `Format`. It reads headers only: nothing of a file is executed, no
tensor is loaded, and torch is not imported. `Reader` is the one place where tensor bytes are read.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal

from ckptfix.errors import (
    AccessFailed,
    CorruptTensor,
    LimitExceeded,
    MalformedFile,
    ReadFailed,
    SourceNotFound,
    TruncatedFile,
)
from ckptfix.tensors import Shape, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 1 << 20
"""Bytes read or written at once. One mebibyte is as fast as any larger size, and steadier."""

MAX_RANK = 64
"""Axes of a tensor: torch and numpy stop there."""

MAX_NBYTES = (1 << 63) - 1
"""Bytes of a tensor: torch counts them in a signed 64-bit integer."""


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
        if self.spec.numel == 0:
            return True
        expected = 1
        for extent, stride in zip(reversed(self.spec.shape), reversed(self.stride), strict=True):
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


def check_shape(shape: object) -> Shape:
    """Give the shape as a tuple of extents.

    Raises MalformedFile where it is not a sequence of integers >= 0, LimitExceeded where no tensor can have it.
    """
    if not isinstance(shape, list | tuple) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise MalformedFile(f"a shape is not a list of integers from 0 up: {_clip(shape)}")
    if len(shape) > MAX_RANK:
        raise LimitExceeded(f"a tensor has {len(shape)} axes, {MAX_RANK} are possible")
    # Empty axes count as one: the strides of an empty tensor overflow all the same.
    if math.prod(extent or 1 for extent in shape) > MAX_NBYTES // 16:
        raise LimitExceeded(f"a tensor of shape {_clip(list(shape))} has more elements than a file can hold")
    return tuple(shape)


def _clip(value: object) -> str:
    """Show a value of a hostile file in at most 80 characters, and at no more cost than that."""
    if isinstance(value, list | tuple):
        shown = ", ".join(str(item)[:24] if type(item) is int and item < 1 << 128 else "…" for item in value[:8])
        return f"[{shown}{', …' if len(value) > 8 else ''}]"
    return type(value).__name__


@dataclass(eq=False, slots=True)
class Opaque:
    """A value that the file would have made by calling code: its name and its arguments, never the code.

    `module` and `name` are what unpickling would have imported; `args` are the constructor's arguments, `state`
    what `__setstate__` would have been given, `items` and `entries` what would have been appended or set by key.
    All are inert values, so that tensors inside stay reachable. The machine fills a record while it runs, because
    a pickle may refer to an object before its state is known; after that nothing changes it.
    """

    module: str
    name: str
    args: Node = ()
    state: Node = None
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Node, Node]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Pairs:
    """A mapping as the file holds it: pairs in order, with keys that are never hashed or compared."""

    items: list[tuple[Node, Node]] = field(default_factory=list)


Node = (
    TensorRef | Opaque | Pairs | list["Node"] | tuple["Node", ...] | str | bytes | int | float | complex | bool | None
)
"""An inert value of a file. Sets are lists, byte arrays are bytes. Values may be shared, and may contain themselves."""


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

        Raises TruncatedFile, MalformedFile or LimitExceeded for a file that breaks the format's rules;
        `open_contents` attaches the path.
        """


class File:
    """A source file opened for `pread`, which notices when the file changes underneath."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A FIFO without a writer would block the plain open for ever.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._stat = os.fstat(self._fd)
        except OSError as error:
            raise access_error(path, error) from error
        if not stat.S_ISREG(self._stat.st_mode):
            os.close(self._fd)
            kind = "a directory" if stat.S_ISDIR(self._stat.st_mode) else "not a regular file"
            raise ReadFailed(f"is {kind}", where=str(path), hint="name the checkpoint file itself")

    @property
    def size(self) -> int:
        """The file's length in bytes when it was opened."""
        return self._stat.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes. Raises TruncatedFile where the file is too short, ReadFailed else."""
        # Asked for up front: a hostile length would otherwise be allocated before it is found to be wrong.
        if offset + length > self.size:
            raise self._too_short(offset, length)
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as error:
                raise access_error(self.path, error) from error
            if not part:
                raise self._too_short(offset, length)
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_short(self, offset: int, length: int) -> TruncatedFile:
        return TruncatedFile(
            f"ends at byte {self.size} where bytes {offset} to {offset + length} are needed",
            where=str(self.path),
            hint="download or copy the file again",
        )

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
        self._verified: set[Storage] = set()

    def chunks(self, ref: TensorRef) -> Iterator[bytes]:
        """Give the tensor's bytes in chunks of at most CHUNK.

        Raises CorruptTensor where the storage's checksum does not match.
        """
        if ref.spec.nbytes == 0:
            return
        first, stop = _span(ref)
        if (first, stop) != (0, ref.storage.nbytes):
            self._verify(ref.storage)
        run = self._decode(ref.storage, first, stop)
        if ref.is_contiguous and not ref.lazy and ref.storage.byteorder == "little":
            yield from run
        else:
            yield from _gather(b"".join(run), ref)

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

    def _verify(self, storage: Storage) -> None:
        """Test the checksum of a storage of which only a part is wanted, once."""
        if storage.crc32 is not None and storage not in self._verified:
            for _ in self._decode(storage, 0, storage.nbytes):
                pass

    def _decode(self, storage: Storage, start: int, stop: int) -> Iterator[bytes]:
        """Give bytes `start` to `stop` of the decoded storage; the checksum is tested when all of it passes."""
        whole = storage.encoding == "deflate" or (start, stop) == (0, storage.nbytes)
        position = 0 if whole else start
        crc = 0
        for chunk in self._inflate(storage) if storage.encoding == "deflate" else self._raw(storage, start, stop):
            if whole and storage.crc32 is not None:
                crc = zlib.crc32(chunk, crc)
            low, high = max(start - position, 0), min(stop - position, len(chunk))
            position += len(chunk)
            if low < high:
                yield chunk if (low, high) == (0, len(chunk)) else chunk[low:high]
        if whole and storage.crc32 is not None:
            if crc != storage.crc32:
                raise CorruptTensor(
                    f"the bytes at {storage.offset} have CRC-32 {crc:08x}, the file says {storage.crc32:08x}",
                    where=str(storage.path),
                    hint="the file is damaged: download or copy it again",
                )
            self._verified.add(storage)

    def _raw(self, storage: Storage, start: int, stop: int) -> Iterator[bytes]:
        file = self._file(storage.path)
        for position in range(start, stop, CHUNK):
            yield file.read(storage.offset + position, min(CHUNK, stop - position))

    def _inflate(self, storage: Storage) -> Iterator[bytes]:
        file = self._file(storage.path)
        stops = range(0, storage.stored_nbytes, CHUNK)
        packed = (file.read(storage.offset + at, min(CHUNK, storage.stored_nbytes - at)) for at in stops)
        try:
            yield from inflate(packed, storage.nbytes)
        except MalformedFile as error:
            raise CorruptTensor(error.message, where=str(storage.path)) from error


def inflate(packed: Iterable[bytes], nbytes: int) -> Iterator[bytes]:
    """Decode a raw deflate stream that declares `nbytes`, in chunks of at most CHUNK.

    Raises MalformedFile where the stream is broken, or holds more or less than it declares.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    produced = 0
    for part in packed:
        while part:
            try:
                chunk = inflater.decompress(part, CHUNK)
            except zlib.error as error:
                raise MalformedFile(f"broken deflate stream: {error}") from error
            produced += len(chunk)
            if produced > nbytes:
                raise MalformedFile(f"a deflated entry holds more than the {nbytes} bytes it declares")
            if chunk:
                yield chunk
            part = inflater.unconsumed_tail
    if produced != nbytes:
        raise MalformedFile(f"a deflated entry holds {produced} bytes and declares {nbytes}")


def _span(ref: TensorRef) -> tuple[int, int]:
    """Give the bytes of the storage, from and to, that the elements of a tensor lie between."""
    bits = ref.spec.dtype.bits
    reach = sum((extent - 1) * step for extent, step in zip(ref.spec.shape, ref.stride, strict=True))
    return ref.offset * bits // 8, ((ref.offset + reach + 1) * bits + 7) // 8


def _gather(data: bytes, ref: TensorRef) -> Iterator[bytes]:
    """Lay the strided, byte-swapped or lazily negated view over `data` out contiguously, little-endian."""
    import numpy as np

    dtype = ref.spec.dtype
    itemsize = dtype.bits // 8
    parts = 2 if dtype.kind == "complex" else 1
    order = ">" if ref.storage.byteorder == "big" else "<"
    # One more axis of real and imaginary parts: all that follows is then integer arithmetic on each part.
    width = itemsize // parts
    view = np.lib.stride_tricks.as_strided(
        np.frombuffer(data, f"{order}u{width}"),
        (*ref.spec.shape, parts),
        (*(step * itemsize for step in ref.stride), width),
        writeable=False,
    )
    for block in _blocks(view):
        flat = block.reshape(-1, parts).astype(f"<u{width}")
        if dtype.kind in ("float", "complex"):
            sign = flat.dtype.type(1 << (8 * width - 1))
            if "conj" in ref.lazy and parts == 2:
                flat[:, 1] ^= sign
            if "neg" in ref.lazy:
                flat ^= sign
        elif "neg" in ref.lazy:
            flat = ~flat + flat.dtype.type(1)
        yield flat.tobytes()


def _blocks(view: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Cut a view along its outer axes into blocks of at most CHUNK bytes, in order.

    A view may be far larger than what it views (`expand`), so it is never copied as a whole.
    """
    if view.nbytes <= CHUNK or view.ndim <= 1:
        yield view
        return
    rows = CHUNK // (view.nbytes // view.shape[0])
    if rows == 0:
        for row in view:
            yield from _blocks(row)
    else:
        for start in range(0, view.shape[0], rows):
            yield view[start : start + rows]
