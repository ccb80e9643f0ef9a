"""The files that a file names: they lie in its own folder, whatever the name says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ckptfix.errors import MalformedFile


def is_index(name: str) -> bool:
    """Tell the name of an index of shards: `model.safetensors.index.json`, of a variant `….index.fp16.json`."""
    return re.fullmatch(r".+\.index(\.[\w-]+)?\.json", name) is not None


def file_beside(path: Path, name: str) -> Path:
    """Give the file of this name in the folder of `path`, whether it exists or not.

    Raises MalformedFile for a name that is a path, and for a link that leads out of the folder. The one exception are
    links into `blobs`, where the cache of huggingface_hub keeps the files of a `snapshots/REVISION` folder
    (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    if name in ("", ".", "..") or len(name) > 255 or any(mark in name for mark in "/\\\0") or not name.isprintable():
        raise MalformedFile(
            f"it names the file {name[:80]!r}, which is no plain name", hint="the files must lie in its own folder"
        )
    file = path.parent / name
    if file.is_symlink() and not _stays(file):
        raise MalformedFile(
            f"{name} is a link that leads out of the folder", hint="put the file itself there, if you trust it"
        )
    return file


def _stays(link: Path) -> bool:
    """Whether what a link leads to lies in the link's folder, or where the hub's cache keeps it."""
    try:
        end = link.resolve().parent
        folder = link.parent.resolve()
    except (OSError, RuntimeError):  # a loop
        return False
    if end == folder:
        return True
    snapshots = next((one for one in folder.parents if one.name == "snapshots"), None)
    return snapshots is not None and end == snapshots.parent / "blobs"


def lacking(path: Path, names: Iterable[str]) -> list[str]:
    """List the names of files beside `path` that are not there. Raises what `file_beside` raises."""
    return [name for name in names if not _is_there(file_beside(path, name))]


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # the system does not say: opening it tells why
        return True
