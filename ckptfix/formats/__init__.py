"""Checkpoint formats: one file each, found by listing this package.

`open_contents` gives all that a file's headers say, `open_checkpoint` the state dict that was meant. Neither reads a
tensor, runs anything that the file holds, or imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from ckptfix.errors import CkptfixError, InvalidCall, TruncatedFile, UnknownFormat, UnsupportedOutput
from ckptfix.formats.base import (
    Contents,
    File,
    Format,
    Opaque,
    Pairs,
    Reader,
    ShardedFormat,
    Storage,
    TensorRef,
    is_folder,
)
from ckptfix.formats.base.collector import collector_paused
from ckptfix.formats.folder import find_in_folder
from ckptfix.formats.select import WHOLE, Candidate, Checkpoint, select_state_dict, wrapper_prefixes

__all__ = [
    "WHOLE",
    "Candidate",
    "Checkpoint",
    "Contents",
    "Opaque",
    "Pairs",
    "Reader",
    "Storage",
    "TensorRef",
    "list_formats",
    "open_checkpoint",
    "open_contents",
    "output_format",
    "split_select",
    "wrapper_prefixes",
]

_HEAD = 512


@cache
def list_formats() -> tuple[Format, ...]:
    """Give one reader of each format: the Format classes of this package's modules."""
    formats: list[Format] = []
    for found in pkgutil.iter_modules(__path__):
        if not found.ispkg:
            module = importlib.import_module(f"{__name__}.{found.name}")
            for _, member in inspect.getmembers(module, inspect.isclass):
                if issubclass(member, Format) and member.__module__ == module.__name__ and member is not Format:
                    formats.append(member())
    return tuple(formats)


@collector_paused()
def open_contents(path: str | Path) -> Contents:
    """Read the headers of a checkpoint: a file, an index with its shards, or a folder that holds either.

    Raises SourceNotFound or ReadFailed where the file cannot be read, UnknownFormat where it is no checkpoint, and
    TruncatedFile, MalformedFile or LimitExceeded where it is a broken or hostile one.
    """
    file = Path(path)
    notes: tuple[str, ...] = ()
    try:
        if is_folder(file):
            file, notes = find_in_folder(file)
        found = _open_file(file, list_formats())
    except CkptfixError as error:
        # A format knows what is wrong; where it is is known here.
        error.where = error.where or str(file)
        raise
    return replace(found, notes=(*notes, *found.notes))


def _open_file(path: Path, formats: Sequence[Format]) -> Contents:
    with File(path) as file:
        head = file.read(0, min(_HEAD, file.size))
        stamps = {path: file.stamp}

    def open_shard(shard: Path) -> Contents:
        found = _open_shard(shard)
        stamps.update(found.stamps)
        return found

    for known in formats:
        if known.recognises(head, path):
            found = known.open_shards(path, open_shard) if isinstance(known, ShardedFormat) else known.open(path)
            return replace(found, stamps={**found.stamps, **stamps})
    raise _unknown(head, path)


def _open_shard(path: Path) -> Contents:
    """Open a file that another names: it cannot name others in turn."""
    return _open_file(path, [known for known in list_formats() if not isinstance(known, ShardedFormat)])


@collector_paused()
def open_checkpoint(spec: str | Path, *, select: str | None = None) -> Checkpoint:
    """Open `FILE` or `FILE#PATH` and choose its state dict. `select` is the recipe's way to say PATH.

    Raises what `open_contents` raises, AmbiguousSource where the file holds several state dicts and none is chosen,
    NoTensors where it holds none, and InvalidCall where PATH does not exist or `select` says another.
    """
    path, chosen = split_select(spec)
    if chosen is not None and select is not None and chosen != select:
        raise InvalidCall(
            f"#{chosen} is asked for, and the recipe selects {select!r}", where=str(path), hint="leave one of them out"
        )
    contents = open_contents(path)
    try:
        return select_state_dict(contents, select if chosen is None else chosen)
    except CkptfixError as error:
        error.where = error.where or str(path)
        raise


def output_format(path: Path) -> Format:
    """Find the format that a file name stands for. Raises UnsupportedOutput for a name that none writes."""
    writers = {suffix: known for known in list_formats() for suffix in known.suffixes}
    if path.suffix not in writers:
        raise UnsupportedOutput(
            f"no format is written as '{path.suffix or path.name}'",
            where=str(path),
            hint=f"use {', '.join(writers)}, or NAME/ for a folder of shards, NAME.dcp for one of torch.distributed",
        )
    return writers[path.suffix]


def split_select(spec: str | Path) -> tuple[Path, str | None]:
    """Split `FILE#PATH`. A file whose name really contains the `#` wins; the longest name that exists does."""
    text = str(spec)
    whole = Path(text)
    if "#" not in text or _exists(whole):
        return whole, None
    cuts = [index for index, letter in enumerate(text) if letter == "#"]
    best = next((cut for cut in reversed(cuts) if _exists(Path(text[:cut]))), cuts[0])
    return Path(text[:best]), text[best + 1 :]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a NUL: no name of a file
        return False


def _unknown(head: bytes, path: Path) -> CkptfixError:
    """Say what the file seems to be instead."""
    if not head:
        return TruncatedFile("is empty", hint="download or copy the file again")
    start = head.lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return UnknownFormat("is a git-lfs pointer, not the file it points to", hint="run `git lfs pull`")
    if start.startswith((b"<!doctype html", b"<html")):
        return UnknownFormat("is a web page, not a checkpoint", hint="the download went to a log-in or an error page")
    if _is_text(head):
        return UnknownFormat("is a text file, not a checkpoint")
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            return UnknownFormat(f"is {kind}, not a checkpoint that ckptfix reads")
    names = ", ".join(sorted(known.name for known in list_formats()))
    return UnknownFormat("is no checkpoint of a known format", hint=f"known are: {names}")


_OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras, TensorFlow)",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    **dict.fromkeys((b"x^", b"x\x9c", b"x\xda"), "compressed by zlib (joblib writes such files)"),
}


def _is_text(head: bytes) -> bool:
    try:
        # The head may end inside a character.
        text = head.decode("utf-8", "ignore" if len(head) == _HEAD else "strict")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n" for letter in text)
