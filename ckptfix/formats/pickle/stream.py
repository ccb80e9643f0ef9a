"""The bytes of a pickle, fetched from a file as the machine asks for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from ckptfix.errors import LimitExceeded, TruncatedFile
from ckptfix.formats.pickle import limits

_BLOCK = 1 << 16


class Stream:
    """Reads forward through a file from `position` to `stop`. `fetch(offset, length)` gives exactly those bytes.

    Where `path` is given, long arguments stay in that file: weights may be among them.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], position: int, stop: int, path: Path | None = None) -> None:
        self.fetch = fetch
        self.path = path
        self._start = position
        self._stop = stop
        self._buffer = b""
        self._at = 0
        self._pickle_start = position
        self.recalled: Container[int] = _ANY
        """The numbers of the memo that the bytes may ask for; others need not be kept."""

    @classmethod
    def over(cls, data: bytes) -> Stream:
        """Read bytes that are in memory."""
        stream = cls(lambda offset, length: data[offset : offset + length], 0, len(data))
        stream.recalled = _recalled(data)
        return stream

    @classmethod
    def within(cls, data: bytes, start: int, path: Path) -> Stream:
        """Read bytes that are in memory and lie at byte `start` of a file."""
        return cls(
            lambda offset, length: data[offset - start : offset - start + length], start, start + len(data), path
        )

    @property
    def position(self) -> int:
        """The offset of the next byte in the file."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """The bytes that were neither taken nor passed over."""
        return self._stop - self.position

    def begin(self) -> None:
        """Start to count the bytes of a new pickle."""
        self._pickle_start = self.position

    def opcodes(self) -> Iterator[int]:
        """Give the next byte each time; between two of them, `take` may be called."""
        while True:
            if self._at >= len(self._buffer):
                self._fill(1)
            self._at += 1
            yield self._buffer[self._at - 1]

    def take(self, length: int) -> bytes:
        """Give the next `length` bytes."""
        stop = self._at + length
        if stop > len(self._buffer):
            self._fill(length)
            stop = length
        data = self._buffer[self._at : stop]
        self._at = stop
        return data

    def skip(self, length: int) -> None:
        """Pass over the next `length` bytes without reading them. They do not count as bytes of the pickle."""
        position = self.position + length
        if position > self._stop:
            raise self._cut_short()
        self._pickle_start += length
        if self._at + length <= len(self._buffer):
            self._at += length
        else:
            self._buffer, self._start, self._at = b"", position, 0

    def line(self) -> bytes:
        """Give the bytes up to the next newline, which is taken too."""
        length = 64
        while True:
            length = min(length, self._stop - self.position)
            data = self.take(length)
            end = data.find(b"\n")
            self._at -= length
            if end >= 0:
                return self.take(end + 1)[:-1]
            if length == self._stop - self.position:
                raise TruncatedFile("a pickle ends inside a line")
            if length >= limits.LINE:
                raise LimitExceeded(f"a pickle has a line of more than {limits.LINE} bytes")
            length *= 4

    def _cut_short(self) -> TruncatedFile:
        return TruncatedFile(
            f"a pickle ends at byte {self._stop}, before its STOP", hint="download or copy the file again"
        )

    def _fill(self, length: int) -> None:
        """Move the window so that it starts at `position` and holds at least `length` bytes."""
        position = self.position
        if position + length > self._stop:
            raise self._cut_short()
        if position + length - self._pickle_start > limits.PICKLE_NBYTES:
            raise LimitExceeded(f"a pickle is longer than {limits.PICKLE_NBYTES} bytes")
        self._buffer = self.fetch(position, min(max(length, _BLOCK), self._stop - position))
        self._start, self._at = position, 0


def _recalled(data: bytes) -> Container[int]:
    """Find the numbers that some opcode may get from the memo: what follows any byte that reads like one.

    Picklers number every value and ask for few again. All numbers of one byte count as asked for; so do all numbers
    where those of four bytes are too many, or where decimal ones are asked for, as protocol 0 does.
    """
    if _GET_LINE.search(data):
        return _ANY
    found: set[bytes] = set()
    for start in range(0, len(data), _BLOCK):
        found.update(_LONG_BINGET.findall(data, start, start + _BLOCK + 4))
        if len(found) > _MOST_RECALLED:
            return _ANY
    return {*range(256), *(int.from_bytes(number, "little") for number in found)}


_ANY = range(1 << 64)
_MOST_RECALLED = 1 << 18
_LONG_BINGET = re.compile(rb"j(?=(.{4}))", re.DOTALL)
_GET_LINE = re.compile(rb"g\s*\+?[0-9_]+\s*\n")
