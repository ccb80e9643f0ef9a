"""The one place where the bytes of tensors are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from ckptfix.digest import crc32
from ckptfix.errors import CorruptTensor, LimitExceeded, MalformedFile
from ckptfix.formats.base.file import BLOCK, CHUNK, File, Stamp, inflate, narrow
from ckptfix.formats.base.joined import Chunks, Joined, join
from ckptfix.formats.base.strided import gather, span
from ckptfix.formats.base.values import Storage, TensorRef

MAX_OPEN = 200
"""Files that are open at once: a process may often have 1,024, a checkpoint of many ranks has more."""


MAX_UNFOLDED = 1024
"""Times that a view may show its storage: masks and positions of published models show theirs some hundred times."""


class Reader:
    """Reads the bytes of tensors: little-endian, contiguous, checked where a checksum is kept.

    `stamps` are those of the files whose headers said where the tensors lie. Several threads may read at once.
    """

    def __init__(self, stamps: Mapping[Path, Stamp] = MappingProxyType({})) -> None:
        self._stamps = dict(stamps)
        self._files: dict[Path, File] = {}
        self._verified: set[Storage] = set()
        self._lock = threading.Lock()

    def passing(self, ref: TensorRef) -> Chunks:
        """Give the tensor's bytes as `chunks` does; each may take the place of the last."""
        return self.chunks(ref, memoryview(bytearray(min(BLOCK, ref.spec.nbytes))))

    def chunks(self, ref: TensorRef, buffer: memoryview | None = None) -> Chunks:
        """Give the tensor's bytes in chunks of at most CHUNK; those of a plain one, if given, in a buffer.

        Raises CorruptTensor where the storage's checksum does not match, LimitExceeded for a view that unfolds a small
        storage into terabytes.
        """
        if ref.spec.nbytes == 0:
            return
        storage = ref.storage
        if isinstance(storage, Joined):
            yield from join(ref.spec.shape, storage.pieces, self.chunks)
            return
        if storage.held is None and ref.spec.nbytes > MAX_UNFOLDED * max(storage.nbytes, CHUNK):
            raise LimitExceeded(
                f"a tensor {ref.spec} of {ref.spec.nbytes:,} bytes shows the same {storage.nbytes:,} again and again",
                where=str(storage.path),
            )
        first, stop = span(ref)
        in_order = ref.is_contiguous and not ref.lazy and storage.byteorder == "little"
        if not in_order or (first, stop) != (0, storage.nbytes):
            self._verify(storage)
        if in_order:
            yield from self._decode(storage, first, stop, buffer)
        elif storage.encoding == "raw":
            yield from gather(ref, lambda start, end: b"".join(self._raw(storage, start, end)), storage.byteorder)
        else:
            held = b"".join(self._decode(storage, first, stop))
            yield from gather(ref, lambda start, end: held[start - first : end - first], storage.byteorder)

    def file(self, path: Path) -> File:
        """Open a file that tensors lie in, or give the open one. Raises ReadFailed where it has changed.

        Of many files those are let go of that were not used for longest.
        """
        with self._lock:
            file = self._files.pop(path, None)
            if file is None:
                if len(self._files) >= MAX_OPEN:
                    self._files.pop(next(iter(self._files))).check_unchanged()
                file = File(path)
                file.check_stamp(self._stamps.setdefault(path, file.stamp))
            self._files[path] = file
            return file

    def read(self, ref: TensorRef) -> bytearray:
        """Give the tensor's bytes as one writable buffer."""
        data = bytearray()
        for chunk in self.passing(ref):
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

    def _verify(self, storage: Storage) -> None:
        """Test the checksum of a storage of which only a part is wanted, once."""
        if storage.crc32 is not None and storage not in self._verified:
            for _ in self._decode(storage, 0, storage.nbytes):
                pass

    def _decode(self, storage: Storage, start: int, stop: int, buffer: memoryview | None = None) -> Chunks:
        """Give bytes `start` to `stop` of the decoded storage; the checksum is tested when all of it passes."""
        whole = storage.encoding != "raw" or (start, stop) == (0, storage.nbytes)
        position = -storage.skip if whole else start
        checksum = 0
        raw = storage.encoding == "raw"
        for chunk in self._raw(storage, position, stop, buffer) if raw else self._unpack(storage):
            if whole and storage.crc32 is not None:
                checksum = crc32(chunk, checksum)
            low, high = max(start - position, 0), min(stop - position, len(chunk))
            position += len(chunk)
            if low < high:
                yield chunk if (low, high) == (0, len(chunk)) else chunk[low:high]
        if whole and storage.crc32 is not None:
            if checksum != storage.crc32:
                raise CorruptTensor(
                    f"the bytes at {storage.offset} have CRC-32 {checksum:08x}, the file says {storage.crc32:08x}",
                    where=str(storage.path),
                    hint="the file is damaged: download or copy it again",
                )
            self._verified.add(storage)

    def _raw(self, storage: Storage, start: int, stop: int, buffer: memoryview | None = None) -> Chunks:
        """Give bytes `start` to `stop`; the header lies before byte 0."""
        step = len(buffer) if buffer else CHUNK
        for position in range(start, stop, step):
            length = min(step, stop - position)
            if storage.held is not None:
                yield storage.held[position : position + length]
                continue
            file, place = self.file(storage.path), storage.offset + storage.skip + position
            if buffer:
                file.read_into(place, buffer[:length])
                yield buffer[:length]
            else:
                yield file.read(place, length)

    def _unpack(self, storage: Storage) -> Iterator[bytes]:
        stops = range(0, storage.stored_nbytes, CHUNK)
        packed = (
            self.file(storage.path).read(storage.offset + at, min(CHUNK, storage.stored_nbytes - at)) for at in stops
        )
        decode = inflate if storage.encoding == "deflate" else narrow
        try:
            yield from decode(packed, storage.skip + storage.nbytes)
        except MalformedFile as error:
            raise CorruptTensor(error.message, where=str(storage.path)) from error
