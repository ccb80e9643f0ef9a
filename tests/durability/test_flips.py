"""One flipped bit: of an output it is always noticed, of an input with checksums it never makes a wrong tensor."""

from __future__ import annotations

import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ckptfix import adapt, verify
from ckptfix.api import target
from ckptfix.errors import CkptfixError, RefusedContent
from ckptfix.formats import Reader, open_checkpoint
from tests.trust import record

from .soak import SOAK

RECIPE = """\
ckptfix: 1
rules:
  - {op: drop, keys: "head.*"}
  - {op: rename, map: {"old.{p}": "new.{p}"}}
  - {op: copy, from: new.w, to: tied}
  - {op: fill, keys: "head.*", value: ones}
  - {op: cast, keys: "half", dtype: F16}
"""


@dataclass(frozen=True)
class Output:
    """What was written: the path that is verified, the files it is made of, and what it is held against."""

    path: Path
    files: tuple[Path, ...]
    want: Path


def write_output(out: Path, **options: Any) -> Output:
    """Write an output of every kind of rule and entry: moved, copied, filled, cast, 0-d, bool, complex, metadata."""
    source, want = out.with_name("source"), out.with_name("want")
    tensors = {
        "old.w": torch.arange(15.0).reshape(5, 3) / 7,
        "old.b": torch.arange(5).bfloat16(),
        "half": torch.arange(4.0),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "phase": torch.tensor([1 + 2j]),
        "head.w": torch.zeros(2),
        "empty": torch.zeros(0, 2),
    }
    save_file(tensors, source, {"format": "pt", "note": "a note", "licence": "none"})
    wanted = {key.replace("old.", "new."): tensor for key, tensor in tensors.items()}
    wanted |= {"half": torch.zeros(4).half(), "head.w": torch.zeros(3), "tied": torch.zeros(5, 3)}
    save_file(wanted, want)
    written = adapt(source, want, out, RECIPE, **options)
    return Output(out, written.files, want)


def write_shards(out: Path) -> Output:
    found = write_output(out.with_name(out.name.removesuffix(".index.json")), max_shard_size=60)
    return replace(found, path=out)


def write_resumed_output(out: Path) -> Output:
    """Write an output that holds an optimizer beside its weights."""
    module = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    source, want = out.with_name("source.pth"), out.with_name("want")
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, source)
    save_file(module.state_dict(), want)
    written = adapt(source, want, out, also=["optimizer"])
    return Output(out, written.files, want)


def flips(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Give the data with one flipped bit at a time: every bit in a soak, else `count` at random."""
    bits = range(len(data) * 8)
    for bit in bits if SOAK or count >= len(bits) else sorted(random.Random(0).sample(bits, count)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(flipped)


OUTPUTS: dict[str, tuple[Callable[[Path], Output], int]] = {
    "out.safetensors": (write_output, 800),
    "out.pth": (write_output, 800),
    "resumed.pth": (write_resumed_output, 800),
    "model.safetensors.index.json": (write_shards, 100),
    "model.bin.index.json": (write_shards, 100),
    "out.dcp": (write_output, 300),
}
"""How each is written, and how many bits of each of its files are flipped."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_flipped_bit_of_an_output_is_noticed(name: str, tmp_path: Path) -> None:
    make, count = OUTPUTS[name]
    output = make(tmp_path / name)
    wanted = target(output.want)
    found = verify(output.path, wanted)
    assert found.ok and found.values, found.problems
    noticed: Counter[str] = Counter()
    silent = []
    for path in output.files:
        whole = path.read_bytes()
        for bit, data in flips(whole, count):
            path.write_bytes(data)
            try:
                found = verify(output.path, wanted)
            except RefusedContent:
                noticed["refused"] += 1
            else:
                noticed["verify"] += not found.ok
                silent += [(path.name, bit)] if found.ok else []
        path.write_bytes(whole)
    assert silent == []
    assert min(noticed.values()) > 50 and len(noticed) == 2
    record(
        f"flips-{name}",
        files=len(output.files),
        flips=noticed.total(),
        refused=noticed["refused"],
        verify=noticed["verify"],
        silent=0,
    )


def save_deflated(tensors: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(tensors, path.with_suffix(".stored"))
    with (
        zipfile.ZipFile(path.with_suffix(".stored")) as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))


def contents(path: Path) -> dict[str, object]:
    """Everything that a reader of tensors would get."""
    checkpoint = open_checkpoint(path)
    with Reader() as reader:
        return {key: (ref.spec, bytes(reader.read(ref))) for key, ref in checkpoint.tensors.items()}


@pytest.mark.parametrize("save", [torch.save, save_deflated])
def test_a_flipped_bit_of_an_input_never_makes_a_wrong_tensor(
    save: Callable[[dict[str, torch.Tensor], Path], None], tmp_path: Path
) -> None:
    source, bad = tmp_path / "source.pth", tmp_path / "flipped.pth"
    shared = torch.arange(12.0)
    tensors = {"w": shared.reshape(3, 4), "view": shared[2:7], "transposed": shared.reshape(3, 4).T}
    save({**tensors, "half": torch.arange(5).half(), "n": torch.tensor(-1), "m": torch.ones(3, 1).bool()}, source)
    whole = contents(source)
    outcomes: Counter[str] = Counter()
    wrong = []
    for bit, data in flips(source.read_bytes(), 1000):
        bad.write_bytes(data)
        try:
            same = contents(bad) == whole
        except CkptfixError as error:
            assert error.exit_code == 3, (bit, error)
            outcomes["refused"] += 1
        else:
            outcomes["same tensors"] += same
            wrong += [] if same else [bit]
    assert wrong == []
    assert min(outcomes.values()) > 50 and len(outcomes) == 2
    record(
        f"flips-of-inputs-{'stored' if save is torch.save else 'deflated'}",
        flips=outcomes.total(),
        refused=outcomes["refused"],
        unused_bits=outcomes["same tensors"],
        wrong=0,
    )
