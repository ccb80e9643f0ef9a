"""Find the checkpoint in a folder: that of torch.distributed, or the weights of a Hugging Face one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ckptfix.counts import count
from ckptfix.errors import AmbiguousSource, NoTensors, TruncatedFile
from ckptfix.formats.base import access_error, is_index

DISTRIBUTED = ".metadata"
"""The file that torch.distributed.checkpoint writes last, and reads first."""

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
"""The names that transformers, diffusers and peft look for, in their order: what cannot hold code comes first."""

_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".npz", ".pkl")
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.[a-z]+")
_SHOWN = 6


def find_in_folder(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Give the file to open for a folder, and what should be said of the choice.

    A name that the ecosystem's loaders look for is taken, in their order; else the only checkpoint there is.
    Raises AmbiguousSource where there are several, NoTensors where there is none, TruncatedFile where shards lie there
    without their index, or files that a run of ckptfix has not finished.
    """
    names, unfinished = _names(folder)
    found = [name for name in names if _is_checkpoint(name) and not _SHARD.fullmatch(name)]
    known = [name for name in (DISTRIBUTED, *_WEIGHTS) if name in found]
    if known:
        beside = ", ".join(known[1:])
        return folder / known[0], (f"{known[0]} is read; {beside} beside it is not",) if beside else ()
    shards = [name for name in names if _SHARD.fullmatch(name) or name.endswith(".distcp")]
    if shards and not any(map(is_index, found)):
        lacks = DISTRIBUTED if shards[0].endswith(".distcp") else "index"
        raise TruncatedFile(
            f"holds {len(shards)} shards without their {lacks}: {_list(shards)}",
            hint="a copy or a run was cut short: run it again, or name one file",
        )
    if len(found) == 1:
        return folder / found[0], ()
    if found:
        raise AmbiguousSource(
            f"holds {len(found)} files that may be meant: {_list(found)}", hint=f"name one: {folder / found[0]}"
        )
    inside = [name for name in names if (folder / name).is_dir() and _holds_weights(folder / name)]
    if inside:
        raise AmbiguousSource(
            f"holds no checkpoint itself, its folders do: {_list(inside)}", hint=f"name one: {folder / inside[0]}"
        )
    if unfinished:
        raise TruncatedFile(
            f"holds only an output that ckptfix has not finished: {count(unfinished, 'file')} .ckptfix-*",
            hint="once no run is writing it, the command that began it goes on from there",
        )
    raise NoTensors("is a folder without a checkpoint", hint="name the checkpoint file itself")


def _names(folder: Path) -> tuple[list[str], int]:
    """List what may be read; count the files of runs that have not ended."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise access_error(folder, error) from error
    # The workspaces of an editor have a folder `.metadata`.
    names = [
        entry.name
        for entry in entries
        if not entry.name.startswith(".") or (entry.name == DISTRIBUTED and entry.is_file())
    ]
    return names, sum(entry.name.startswith(".ckptfix-") for entry in entries)


def _is_checkpoint(name: str) -> bool:
    return name == DISTRIBUTED or is_index(name) or name.endswith(_SUFFIXES)


def _holds_weights(folder: Path) -> bool:
    try:
        names = [entry.name for entry in os.scandir(folder)]
        return any(map(_is_checkpoint, names))
    except OSError:
        return False


def _list(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
