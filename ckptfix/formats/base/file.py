"""A source file, opened once and read at offsets."""

from __future__ import annotations

import codecs
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from ckptfix.errors import AccessFailed, MalformedFile, ReadFailed, SourceNotFound, TruncatedFile

CHUNK = 1 << 20
BLOCK = 1 << 19
"""Bytes of a buffer through which others pass: it stays in a processor's cache with what they come from and go to.

Two threads copy faster so than the system's own copy_file_range; with a buffer twice as large they take twice as long.
"""
"""Bytes read or written at once. One mebibyte is as fast as any larger size, and steadier."""


Stamp = tuple[int, int, int, int]
"""What tells one state of one file from another: device, inode, length in bytes, time of change in ns."""


class File:
    """A source file opened for `pread`, which notices when the file changes underneath."""

    start = 0
    """The byte of the file on disk that is byte 0 here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        try:
            # A FIFO without a writer would block the plain open for ever.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._stat = os.fstat(self._fd)
        except OSError as error:
            raise access_error(path, error) from error
        except ValueError as error:  # a NUL in the name
            raise SourceNotFound("no such file", where=repr(str(path))) from error
        if not stat.S_ISREG(self._stat.st_mode):
            self.close()
            kind = "a directory" if stat.S_ISDIR(self._stat.st_mode) else "not a regular file"
            raise ReadFailed(f"is {kind}", where=str(path), hint="name the checkpoint file itself")

    @property
    def size(self) -> int:
        """The file's length in bytes when it was opened."""
        return self._stat.st_size

    @property
    def stamp(self) -> Stamp:
        """The state in which the file was opened."""
        return _stamp(self._stat)

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
        if _stamp(os.fstat(self._fd)) != self.stamp:
            raise ReadFailed("changed while it was read", where=str(self.path), hint="run again once it is whole")

    def check_stamp(self, stamp: Stamp) -> None:
        """Raise ReadFailed where the file is not in the state in which it was opened before."""
        if stamp != self.stamp:
            raise ReadFailed("changed since its header was read", where=str(self.path), hint="run again")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `offset` on. Raises what `read` raises."""
        if offset + len(buffer) > self.size:
            raise self._too_short(offset, len(buffer))
        while buffer:
            try:
                count = os.preadv(self._fd, [buffer], offset)
            except OSError as error:
                raise access_error(self.path, error) from error
            if not count:
                raise self._too_short(offset, len(buffer))
            buffer = buffer[count:]
            offset += count

    def fileno(self) -> int:
        """Give the descriptor, for system calls that copy between files: it is closed when this object is let go of."""
        return self._fd

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        """Close a file that its last user has let go of."""
        self.close()

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Window(File):
    """A run of bytes in an open file that is a file of its own. It closes nothing."""

    def __init__(self, whole: File, start: int, nbytes: int) -> None:
        self.path = whole.path
        self.start = start
        self._whole = whole
        self._nbytes = nbytes
        # Asked for now, so that a window never shows what it cannot read.
        if start + nbytes > whole.size:
            raise whole._too_short(start, nbytes)

    @property
    def size(self) -> int:
        """The length of the run in bytes."""
        return self._nbytes

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes. Raises TruncatedFile where the run is too short."""
        if offset + length > self._nbytes:
            raise self._too_short(offset, length)
        return self._whole.read(self.start + offset, length)

    def check_unchanged(self) -> None:
        """Ask the file."""
        self._whole.check_unchanged()

    def close(self) -> None:
        """Leave the file open: it is closed by whoever opened it."""


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder's. Where the system does not say it is none: opening it tells why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def access_error(path: Path, error: OSError) -> AccessFailed:
    """Translate a failed system call on a source."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceNotFound("no such file", where=str(path))
    return ReadFailed((error.strerror or str(error)).lower(), where=str(path))


def inflate(packed: Iterable[bytes], nbytes: int) -> Iterator[bytes]:
    """Decode a raw deflate stream that declares `nbytes`, in chunks of at most CHUNK.

    Raises MalformedFile where the stream is broken, or holds more or less than it declares.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    produced = 0
    for part in packed:
        pending = True
        while pending:
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
            # A full chunk may leave output inside the inflater although it has taken all the input.
            pending = bool(part) or len(chunk) == CHUNK
    if not inflater.eof or inflater.unused_data:
        raise MalformedFile("a deflated entry ends before or after its deflate stream does")
    if produced != nbytes:
        raise MalformedFile(f"a deflated entry holds {produced} bytes and declares {nbytes}")


def narrow(packed: Iterable[bytes], nbytes: int) -> Iterator[bytes]:
    """Decode UTF-8 text each of whose characters stands for one byte, `nbytes` in all.

    Raises MalformedFile where it is no such text, or longer or shorter than it declares.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    produced = 0
    try:
        for part in packed:
            chunk = decoder.decode(part).encode("latin-1")
            produced += len(chunk)
            yield chunk
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise MalformedFile("bytes that are written as text hold other text") from error
    if produced != nbytes:
        raise MalformedFile(f"bytes that are written as text are {produced}, and declared as {nbytes}")
