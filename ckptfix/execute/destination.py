"""What an output is made of: one file, shards with their index, or a folder of torch.distributed.

The names of shards are those of huggingface_hub: `model-00001-of-00003.safetensors`, `model.safetensors.index.json`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from ckptfix.digest import hash_text
from ckptfix.errors import InvalidCall, OutputExists, WriteFailed
from ckptfix.execute.atomic import refuse_existing
from ckptfix.formats import list_formats, output_format
from ckptfix.formats.base import Format, is_folder
from ckptfix.formats.distributed_file import DistributedFile
from ckptfix.tensors import TensorSpec

SHARD_NBYTES = 5 * 10**9
"""The longest shard in a folder, where none is asked for: huggingface_hub's own."""

_WEIGHTS = "model.safetensors"
_METADATA = ".metadata"
_FOLDER = ".dcp"


class Part(Struct, frozen=True):
    """One of several files, and the keys whose tensors it holds."""

    name: str
    keys: tuple[str, ...]


class Destination(Struct, frozen=True):
    """Where an output goes.

    `path` is the file that is written last and read first: the only file, the index's namesake (`model.safetensors`),
    or `.metadata`. `limit` is the longest shard in bytes, None for no limit.
    """

    kind: Literal["file", "shards", "distributed"]
    path: Path
    limit: int | None
    folder: Path | None = None
    """The folder that the output is, and that is made where it does not exist."""

    @classmethod
    def of(cls, out: str | Path, max_shard_size: int | None = None) -> Destination:
        """Understand an output: `x.dcp` is a folder of torch.distributed, `x/` or a folder one of shards, else a file.

        Raises UnsupportedOutput for a name that stands for nothing, InvalidCall for a size below 1.
        """
        path = Path(out)
        if max_shard_size is not None and max_shard_size < 1:
            raise InvalidCall("no shard is that short", hint="--max-shard-size takes 5GB, say")
        if path.suffix == _FOLDER:
            return cls("distributed", path / _METADATA, max_shard_size, path)
        if str(out).endswith(os.sep) or (is_folder(path) and not _is_written(path)):
            return cls("shards", path / _WEIGHTS, SHARD_NBYTES if max_shard_size is None else max_shard_size, path)
        output_format(path)
        return cls("file" if max_shard_size is None else "shards", path, max_shard_size)

    @property
    def format(self) -> Format:
        """The format of the files that hold tensors."""
        return DistributedFile() if self.kind == "distributed" else output_format(self.path)

    @property
    def last(self) -> Path:
        """The file that names the others."""
        return self.path if self.kind == "distributed" else self.path.with_name(f"{self.path.name}.index.json")

    def refuse_taken(self, *, replace: bool) -> None:
        """Raise OutputExists where an output, or a shard, is there and not to be replaced, or the folder is none."""
        if self.folder is not None and os.path.lexists(self.folder) and not is_folder(self.folder):
            raise OutputExists("exists, and is no folder", where=str(self.folder), hint="name another folder")
        named = self.named()
        for path in self.replaced():
            if path not in named:
                shard = path not in (self.path, self.last)
                refuse_existing(path, replace=replace, remedy=f"--force {'removes' if shard else 'replaces'} it")

    def parts(self, specs: Mapping[str, TensorSpec]) -> list[Part] | None:
        """Share the tensors out among files; None where all go into the one at `path`."""
        if self.kind == "file":
            return None
        groups = split_keys(specs, self.limit)
        if self.kind == "distributed":
            return [Part(f"__0_{number}.distcp", tuple(keys)) for number, keys in enumerate(groups or [[]])]
        if len(groups) < 2:
            return None
        stem, suffix = self.path.stem, self.path.suffix
        names = (f"{stem}-{number:05d}-of-{len(groups):05d}{suffix}" for number in range(1, len(groups) + 1))
        return [Part(name, tuple(keys)) for name, keys in zip(names, groups, strict=True)]

    def replaced(self) -> list[Path]:
        """List the files of an older output that a new one must not lie beside: loaders would take one for the other.

        Those that are read first come first, `last` after any that loaders prefer to it, then all shards of the name,
        whether a file names them or not.
        """
        if self.kind == "file":
            return [self.path]
        if self.kind == "distributed":
            return [self.path, *self._matching(r"__\d+_\d+\.distcp")]
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        return [self.path, self.last, *self._matching(rf"{stem}-\d{{5}}-of-\d{{5}}{suffix}")]

    def unfinished(self) -> list[Path]:
        """List what runs to this output have finished of a set, under names that no loader looks for."""
        return self._matching(rf"{re.escape(self.hidden)}.*")

    def named(self) -> list[Path]:
        """List the shards to which a run that has not ended has given their names: they have a hidden one, too."""
        hidden = {identity(path) for path in self.unfinished()} - {None}
        return [path for path in self.replaced() if identity(path) in hidden]

    @property
    def hidden(self) -> str:
        """What the hidden names of a set's files begin with."""
        return f".ckptfix-{hash_text(self.last.name)[:12]}-"

    def _matching(self, pattern: str) -> list[Path]:
        """List the names in the output's folder that match; none where it cannot be listed."""
        try:
            return sorted(path for path in self.last.parent.iterdir() if re.fullmatch(pattern, path.name))
        except OSError:
            return []


def split_keys(specs: Mapping[str, TensorSpec], limit: int | None) -> list[list[str]]:
    """Share keys out in their order, as huggingface_hub does: a tensor longer than the limit is alone in its shard."""
    if limit is None:
        return [list(specs)] if specs else []
    groups: list[list[str]] = []
    current: list[str] = []
    filled = 0
    for key, spec in specs.items():
        if spec.nbytes > limit:
            groups.append([key])
            continue
        if filled + spec.nbytes > limit:
            groups.append(current)
            current, filled = [], 0
        current.append(key)
        filled += spec.nbytes
    return [*groups, current] if current else groups


def write_index(
    specs: Mapping[str, TensorSpec], parts: Sequence[Part], receipt: str, files: Mapping[str, str]
) -> bytes:
    """Give the index of shards; `files` gives the digest of each shard's receipt."""
    metadata = {
        "ckptfix": receipt,
        "ckptfix_shards": dict(files),
        "total_size": sum(spec.nbytes for spec in specs.values()),
    }
    weight_map = {key: part.name for part in parts for key in part.keys}
    return f"{json.dumps({'metadata': metadata, 'weight_map': weight_map}, indent=2, sort_keys=True)}\n".encode()


def make_folder(destination: Destination) -> bool:
    """Make the folder that an output is, and tell whether it was not there. Raises WriteFailed."""
    if destination.folder is None or is_folder(destination.folder):
        return False
    try:
        destination.folder.mkdir()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WriteFailed(f"cannot make the folder: {reason}", where=str(destination.folder)) from error
    return True


def _is_written(path: Path) -> bool:
    """Tell a name that stands for one file."""
    return any(path.suffix in known.suffixes for known in list_formats())


def identity(path: Path) -> tuple[int, int] | None:
    """Give what all names of one file have in common; None where there is no file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
