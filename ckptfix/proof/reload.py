"""Read a checkpoint with torch's and safetensors' own code: the second path, which shares nothing with the writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from msgspec import Struct
from torch import Tensor

from ckptfix.execute.evaluate import from_bytes
from ckptfix.formats import WHOLE, Checkpoint, Reader
from ckptfix.proof.finding import first_keys, one_line

_FORMATS = ("safetensors", "torch zip", "torch legacy")
"""What safetensors reads, and torch without unpickling what it does not know."""

_LETTERS = 80
"""Characters of a name that are shown."""


class Reloaded(Struct, frozen=True):
    """The tensors of a state dict. `note` says why another reader than the format's own had to be used."""

    tensors: Mapping[str, Tensor]
    note: str | None = None


def reload(checkpoint: Checkpoint) -> Reloaded:
    """Load the selected state dict onto the CPU, with the format's own library where that accepts the file.

    `torch.load` refuses a file that names classes which it does not know, and no library reads some formats without
    running what they name. Then the tensors are read by ckptfix.
    """
    if not checkpoint.format.endswith(_FORMATS):
        return Reloaded(
            read_tensors(checkpoint), f"ckptfix read the file: no second reader of {checkpoint.format} is used"
        )
    found: dict[str, Tensor] = {}
    shards = sorted(checkpoint.files) if checkpoint.format.startswith("sharded ") else [checkpoint.path]
    for path in shards:
        loaded = _load_file(path) if checkpoint.format.endswith("safetensors") else _torch_load(path, checkpoint)
        if isinstance(loaded, str):
            return Reloaded(read_tensors(checkpoint), loaded)
        found |= dict(_flatten(loaded, ""))
    prefix = f"{checkpoint.select}." if checkpoint.select not in ("", WHOLE) else ""
    found = {key.removeprefix(prefix): tensor for key, tensor in found.items() if key.startswith(prefix)}
    if not checkpoint.tensors.keys() <= found.keys():
        return Reloaded(read_tensors(checkpoint), "torch.load gives other keys, ckptfix read the file")
    return Reloaded({key: found[key] for key in checkpoint.tensors})


def _load_file(path: Path) -> dict[str, Tensor] | str:
    """Give the tensors of one file of safetensors, or say why its library refuses it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        return f"safetensors refuses the file, ckptfix read it: {one_line(error)}"


def _torch_load(path: Path, checkpoint: Checkpoint) -> object:
    """Give what a file of torch holds, or say why torch refuses it: without its advice to unpickle the file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        names = list(dict.fromkeys(str(value)[:_LETTERS] for _, value in checkpoint.opaque))
        for_what = f", which would call {first_keys(names)}" if names else ""
        return f"torch.load(weights_only=True) refuses the file{for_what}: ckptfix read it, and calls nothing"
    except Exception as error:  # noqa: BLE001  what torch happens to raise on a damaged file; ckptfix reads it then
        return f"torch.load refuses the file, ckptfix read it: {one_line(error)}"


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read every tensor with ckptfix's own reader."""
    with Reader(checkpoint.stamps) as reader:
        return {key: from_bytes(reader.read(ref), ref.spec) for key, ref in checkpoint.tensors.items()}


def _flatten(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value.detach()
        return
    if isinstance(value, Mapping):
        items = [(key.decode() if isinstance(key, bytes) else str(key), child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(number), child) for number, child in enumerate(value)]
    else:
        return
    for name, child in items:
        yield from _flatten(child, f"{path}.{name}" if path else name)
