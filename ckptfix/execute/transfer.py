"""Put the bytes of outputs into a file: runs of the source that stay together are copied together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ckptfix.digest import NO_DIGEST, crc32, hash_chunks, hasher
from ckptfix.execute.atomic import NewFile
from ckptfix.execute.clone import clone
from ckptfix.formats.base import BLOCK, CHUNK, Range, Reader

if TYPE_CHECKING:
    from blake3 import blake3

BATCH = 32 * CHUNK
"""What one thread does at a time. A tensor is never shared out: its digest runs from its first byte to its last."""
_PAGE = 4096


class Meter:
    """Computes what is asked for of the bytes of one output, as they pass.

    A hasher takes two kilobytes: it lives from the first byte to the last.
    """

    __slots__ = ("_checksum", "_digest", "_hasher", "_left", "crc32", "has_digest")

    def __init__(self, nbytes: int, *, digest: bool, checksum: bool) -> None:
        self.has_digest = digest
        self.crc32 = 0
        self._checksum = checksum
        self._digest: str | None = None
        self._hasher: blake3 | None = None
        self._left = nbytes

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for, so that the bytes need not pass here."""
        return not self.has_digest and not self._checksum

    def update(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self.has_digest:
            self._hash(chunk)
        if self._checksum:
            self.crc32 = crc32(chunk, self.crc32)

    def watch(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Pass chunks on."""
        for chunk in chunks:
            self.update(chunk)
            yield chunk

    @property
    def digest(self) -> str:
        """The BLAKE3 digest of the bytes, once all have passed; zeros where none was asked for."""
        if not self.has_digest:
            return NO_DIGEST
        assert not self._left, "bytes of an output were never written"
        return hash_chunks([]) if self._digest is None else self._digest

    def _hash(self, chunk: bytes | memoryview) -> None:
        if self._hasher is None:
            self._hasher = hasher()()
        self._hasher.update(chunk)
        self._left -= len(chunk)
        if not self._left:
            self._digest = self._hasher.hexdigest()
            self._hasher = None


class Run(Struct, frozen=True, gc=False):
    """Bytes from `start` on of a source that go to `offset` in the output: those of each key, one after another."""

    path: Path
    start: int
    offset: int
    nbytes: int
    parts: tuple[tuple[str, int], ...]


def runs_of(key: str, ranges: Sequence[Range], offset: int) -> list[Run]:
    """Say where the ranges that are an output's bytes go, one after another."""
    runs: list[Run] = []
    for found in ranges:
        runs.append(Run(found.path, found.start, offset, found.nbytes, ((key, found.nbytes),)))
        offset += found.nbytes
    return runs


def batches(outputs: Iterable[Sequence[Run]]) -> Iterator[list[Run]]:
    """Share outputs out in the order of the source; runs that are neighbours on both sides become one."""
    batch: list[Run] = []
    waiting: list[Run] = []
    filled = 0
    for runs in sorted((runs for runs in outputs if runs), key=lambda runs: (str(runs[0].path), runs[0].start)):
        for run in runs:
            last = waiting[-1] if waiting else run
            if (last.path, last.start + last.nbytes, last.offset + last.nbytes) != (run.path, run.start, run.offset):
                batch += _joined(waiting)
                waiting = []
            waiting.append(run)
            filled += run.nbytes
        if filled >= BATCH:
            yield batch + _joined(waiting)
            batch, waiting, filled = [], [], 0
    if filled:
        yield batch + _joined(waiting)


def _joined(runs: Sequence[Run]) -> list[Run]:
    if len(runs) < 2:
        return list(runs)
    nbytes = sum(run.nbytes for run in runs)
    return [Run(runs[0].path, runs[0].start, runs[0].offset, nbytes, tuple(run.parts[0] for run in runs))]


class Transfer:
    """Moves bytes from the files of a reader into one output. `advance` is told how many it were, and may raise."""

    def __init__(
        self, reader: Reader, file: NewFile, meters: Mapping[str, Meter], advance: Callable[[int], None]
    ) -> None:
        self._reader = reader
        self._file = file
        self._meters = meters
        self._advance = advance

    def clone(self, batches: Iterable[Sequence[Run]]) -> tuple[list[list[Run]], int]:
        """Share what blocks the file system can share of runs that nothing is asked of.

        Gives the runs that are left to copy, and how many bytes are shared.
        """
        left: list[list[Run]] = []
        shared = 0
        for batch in batches:
            rest: list[Run] = []
            for run in batch:
                source = self._reader.file(run.path)
                place = run.start, self._file.fileno(), run.offset, run.nbytes
                first, nbytes = clone(source.fileno(), *place, self._file.block)
                rest += _part(run, 0, first if nbytes else run.nbytes)
                if nbytes:
                    rest += _part(run, first + nbytes, run.nbytes)
                    shared += nbytes
                    self._advance(nbytes)
            left.append(rest)
        return left, shared

    def copy(self, runs: Iterable[Run]) -> None:
        """Copy runs."""
        buffer = memoryview(bytearray(BLOCK))
        for run in runs:
            self._measure(run, self._blocks(run, buffer))

    def pour(self, key: str, offset: int, chunks: Iterable[bytes | memoryview]) -> None:
        """Write the chunks of one output."""
        meter = self._meters[key]
        for chunk in chunks:
            meter.update(chunk)
            self._file.write(offset, chunk)
            offset += len(chunk)
            self._advance(len(chunk))

    def _blocks(self, run: Run, buffer: memoryview) -> Iterator[memoryview]:
        """Copy a run, and give each block of it, which ends on a page; many small ones are told about once."""
        source = self._reader.file(run.path)
        done = told = 0
        while done < run.nbytes:
            block = buffer[: min(len(buffer) - (run.offset + done) % _PAGE, run.nbytes - done)]
            source.read_into(run.start + done, block)
            self._file.write(run.offset + done, block)
            done += len(block)
            if done - told >= CHUNK:
                self._advance(done - told)
                told = done
            yield block
        self._advance(run.nbytes - told)

    def _measure(self, run: Run, blocks: Iterable[memoryview]) -> None:
        """Show each output the blocks, or parts of blocks, that are its own."""
        parts = iter(run.parts)
        key, left = next(parts)
        for block in blocks:
            at = 0
            while at < len(block):
                if not left:
                    key, left = next(parts)
                part = block[at : at + left]
                self._meters[key].update(part)
                at += len(part)
                left -= len(part)


def _part(run: Run, first: int, last: int) -> list[Run]:
    if first >= last:
        return []
    return [Run(run.path, run.start + first, run.offset + first, last - first, run.parts)]
