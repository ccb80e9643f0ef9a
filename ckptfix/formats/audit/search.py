"""Search a file for the names that unpickling would import, in every pickle that can be found in it.

A file that can be read has told them already. One that is refused is searched without regard to its format, each pickle
as far as a reader of pickles would come. In either, bytes that a call would have unpickled in turn are searched too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from msgspec import Struct

from ckptfix.errors import CkptfixError, LimitExceeded, RefusedContent
from ckptfix.formats import open_contents
from ckptfix.formats.audit.memory import Memory
from ckptfix.formats.audit.pickles import trace_pickles
from ckptfix.formats.base import File, Opaque, Window
from ckptfix.formats.base.collector import collector_paused
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import Global, Run
from ckptfix.formats.zip.directory import DEFLATED, iter_entries

_BUDGET = 8 << 20
"""What the pickles that are searched may cost, all together: see `limits.BUDGET`."""

_MOST_NBYTES = 64 << 20
"""Bytes that are unpacked, or copied out of a pickle, to be searched, all together."""

_MOST_MEMBERS = 10_000
"""Members of an archive that are looked at."""

_LOADERS = {"torch.storage._load_from_bytes", "pickle.loads", "_pickle.loads", "dill.loads", "cloudpickle.loads"}
"""What unpickles the bytes that are its first argument."""

_TOO_MUCH = "the pickles hold too many values"

_PICKLES = (".pkl", ".pickle", ".npy")
_PROTOCOLS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
"""How the pickles in an archive are told from the rest: by name, or by how they begin."""


class Audit(Struct, frozen=True):
    """The names with their places, why the file is refused if it is, and what was not searched to its end."""

    opaque: tuple[tuple[str, Opaque], ...]
    refusal: RefusedContent | None
    notes: tuple[str, ...]


@collector_paused()
def audit_file(path: Path) -> Audit:
    """List what a file would have run. Raises what `open_contents` raises but RefusedContent."""
    search = _Search()
    refusal: RefusedContent | None = None
    try:
        search.found.extend(open_contents(path).opaque)
    except RefusedContent as error:
        refusal = error
        if isinstance(error, LimitExceeded):  # which has cost the most that a file may
            search.spend(_BUDGET * 3 // 4)
        search.look_into_refused(Path(str(error.where or path)))
    search.follow()
    return Audit(tuple(search.found), refusal, tuple(search.notes))


class _Search:
    """What was found so far, and what the search may still cost."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Opaque]] = []
        self.notes: list[str] = []
        self._left = _BUDGET
        self._nbytes = _MOST_NBYTES

    def spend(self, cost: int) -> None:
        """Leave so much less for the search."""
        self._left -= cost

    def look_into_refused(self, path: Path) -> None:
        """Search a file that no format reads. A folder holds nothing itself."""
        if path.is_file():
            with File(path) as file:
                self._look_into(file, "")

    def follow(self) -> None:
        """Search the bytes that the calls among what was found would have unpickled, and those of the calls in them."""
        for place, value in self.found:  # which grows meanwhile
            if isinstance(value, Global) or str(value) not in _LOADERS:
                continue
            data = value.args[0] if isinstance(value.args, tuple) and value.args else None
            if isinstance(data, bytes) and self._may_copy(len(data), place):
                self._look_into(Memory(Path(), data), f"{place or 'the root'} (bytes): ")
            elif isinstance(data, Run) and self._may_copy(data.nbytes, place):
                self._look_into(Memory(data.path, _copy(data)), f"{place or 'the root'} (bytes): ")

    def _may_copy(self, nbytes: int, place: str) -> bool:
        """Whether so many bytes more may be held. Where not, it is noted."""
        self._nbytes -= nbytes
        if self._nbytes < 0:
            self._note(place, f"more than {_MOST_NBYTES} bytes")
        return self._nbytes >= 0

    def _note(self, place: str, why: str) -> None:
        self.notes.append(f"not all that lies in {place.removesuffix(': ') or 'the file'} was searched: {why}")

    def _look_into(self, file: File, place: str) -> None:
        """Search a file, or a part of one, by how it begins."""
        head = file.read(0, min(file.size, 512))
        try:
            if head.startswith(b"PK\3\4"):
                self._look_into_entries(file, place)
            elif head[257:262] == b"ustar":
                for name, start, nbytes in islice(_tar_members(file), _MOST_MEMBERS):
                    self._trace(Window(file, start, nbytes), 0, f"{place}{name}: ")
            else:
                self._trace(file, _array_header(head), place)
        except CkptfixError as error:
            self._note(place, error.message)

    def _look_into_entries(self, file: File, place: str) -> None:
        """Search the pickles of a zip archive, as far as its directory can be read."""
        for number, entry in enumerate(iter_entries(file)):
            if number == _MOST_MEMBERS:
                raise LimitExceeded(f"it has more than {_MOST_MEMBERS} entries")
            named = entry.name.endswith(_PICKLES)
            if entry.method == DEFLATED and named and self._may_copy(entry.nbytes, f"{place}{entry.name}"):
                self._look_into(Memory(file.path, entry.read(file, entry.nbytes)), f"{place}{entry.name}: ")
            elif entry.method != DEFLATED and (named or file.read(entry.offset, min(entry.nbytes, 2)) in _PROTOCOLS):
                self._look_into(Window(file, entry.offset, entry.nbytes), f"{place}{entry.name}: ")

    def _trace(self, file: File, start: int, place: str) -> None:
        """Search the pickles that lie one after another from byte `start` on."""
        if self._left <= 0:
            raise LimitExceeded(_TOO_MUCH)
        # Protocols 0 and 1 do not tell themselves from text, which may look like a name, but not like a call.
        is_text = file.read(start, min(1, file.size - start)) != b"\x80"
        # Of a file on disk the long arguments stay there.
        kept = None if isinstance(file, Memory) else file.path
        stream = Stream(
            lambda at, length: file.read(at - file.start, length), file.start + start, file.start + file.size, kept
        )
        for number, trace in enumerate(trace_pickles(stream, self._left)):
            self._left -= trace.spent
            if not (is_text and trace.fault and all(isinstance(value, Global) for _, value in trace.opaque)):
                which = f"pickle {number + 1}: " if number else ""
                self.found += [(f"{place}{which}{where}", value) for where, value in trace.opaque]
            if isinstance(trace.fault, LimitExceeded):
                raise trace.fault
        if self._left <= 0 and stream.remaining:
            raise LimitExceeded(_TOO_MUCH)


def _copy(run: Run) -> bytes:
    """Read the bytes that an argument left in its file stands for."""
    with File(run.path) as file:
        stored = file.read(run.offset, run.nbytes)
    return stored if run.encoding == "raw" else stored.decode("utf-8", "replace").encode("latin-1", "replace")


def _array_header(head: bytes) -> int:
    """Give the bytes of numpy's header before the pickle of an array of objects; 0 where there is none."""
    if not head.startswith(b"\x93NUMPY"):
        return 0
    width = 2 if head[6:7] == b"\1" else 4
    return 8 + width + int.from_bytes(head[8 : 8 + width], "little")


def _tar_members(file: File) -> Iterator[tuple[str, int, int]]:
    """Give the name, the first byte and the length of each member, up to the first header that is none."""
    at = 0
    while at + 512 <= file.size:
        header = file.read(at, 512)
        digits = header[124:136].strip(b" \0")
        if header[257:262] != b"ustar" or not digits.isdigit() or digits.strip(b"01234567"):
            return
        nbytes = int(digits, 8)
        yield header[:100].rstrip(b"\0").decode("utf-8", "replace"), at + 512, min(nbytes, file.size - at - 512)
        at += 512 + -(-nbytes // 512) * 512
