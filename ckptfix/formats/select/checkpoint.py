"""The selected state dict of a file, and what is worth knowing of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from ckptfix.formats.base import Joined, Opaque, Stamp, TensorRef
from ckptfix.tensors import Manifest

_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel (and DataParallel), and torch.compile, put before every key."""


class Candidate(NamedTuple):
    """A state dict in a file: its dotted path ('' for the root), its tensors and their bytes together."""

    path: str
    tensors: int
    nbytes: int


class Checkpoint(Struct, frozen=True):
    """The selected state dict of a file.

    `select` is its path in the file ('' for the root, '.' for the whole file flattened). `ignored` are the keys of
    the selected state dict that hold no tensor, `optimizers` the paths of optimizer states, `aliases` the groups of
    keys that are the same view of the same bytes, `candidates` all state dicts of the file, `notes` what should be
    said of how it was read.
    """

    path: Path
    format: str
    select: str
    manifest: Manifest
    tensors: Mapping[str, TensorRef]
    metadata: Mapping[str, str]
    opaque: tuple[tuple[str, Opaque], ...]
    candidates: tuple[Candidate, ...]
    ignored: tuple[str, ...]
    optimizers: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    stamps: Mapping[Path, Stamp] = field(default_factory=dict)
    """The states in which the files were whose headers were read: their tensors lie there in no other."""

    @property
    def files(self) -> frozenset[Path]:
        """The files that the tensors lie in."""
        return frozenset(one.path for ref in self.tensors.values() for one in ref.storages if one.held is None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, each with the name of the file that it is about."""
        return tuple(f"{self.path.name}: {note}" for note in self.notes)

    @property
    def choice(self) -> str | None:
        """The path that has to be given for this state dict to be selected; None where it is the only one."""
        return None if [one.path for one in self.candidates] == [self.select] else self.select


def find_aliases(tensors: Mapping[str, TensorRef]) -> tuple[tuple[str, ...], ...]:
    """Group the keys whose tensors are the same view: same place in the file, shape, stride, dtype and lazy bits."""
    begins = [_begin(ref) for ref in tensors.values()]
    if len({*begins}) == len(begins):
        return ()
    shared = {begin for begin, number in Counter(begins).items() if number > 1}
    groups: dict[object, list[str]] = {}
    for (key, ref), begin in zip(tensors.items(), begins, strict=True):
        if begin in shared and ref.spec.numel:
            groups.setdefault((_place(ref), ref.spec, ref.stride, ref.lazy), []).append(key)
    return tuple(tuple(keys) for keys in groups.values() if len(keys) > 1)


def _begin(ref: TensorRef) -> int:
    """Give a number that differs where two tensors of one file begin at different places."""
    storage = ref.storage
    if isinstance(storage, Joined):
        return id(storage)
    return (storage.offset + storage.skip) * 8 + (ref.offset * ref.spec.dtype.bits if ref.offset else 0)


def _place(ref: TensorRef) -> object:
    """Tell where a tensor begins, as something that no other place equals."""
    storage = ref.storage
    if isinstance(storage, Joined) or storage.held is not None:
        return id(storage), ref.offset
    if storage.encoding == "raw":
        return storage.path, (storage.offset + storage.skip) * 8 + ref.offset * ref.spec.dtype.bits
    # An encoded storage has its elements nowhere in the file: its own offset tells it from others.
    return storage.path, storage.encoding, storage.offset, ref.offset


def wrapper_prefixes(keys: Iterable[str]) -> tuple[str, ...]:
    """Give the wrapper prefixes that ALL keys have, outermost first: `("module.", "_orig_mod.")`.

    They are reported, never removed unasked.
    """
    rest = list(keys)
    found: list[str] = []
    while rest:
        prefix = next((prefix for prefix in _WRAPPERS if all(key.startswith(prefix) for key in rest)), None)
        if prefix is None:
            break
        found.append(prefix)
        rest = [key.removeprefix(prefix) for key in rest]
    return tuple(found)
