"""Compare what is read of changed files with what the format's own library reads, where both accept them.

`python -m tests.fuzz.compare CORPUS FORMAT SEED COUNT FAILING` prints as JSON how often each did what. torch and
safetensors run in forked processes: a changed file may end them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from ckptfix.errors import CkptfixError
from ckptfix.execute.evaluate import to_bytes
from ckptfix.formats import Reader, open_checkpoint
from tests.fuzz.specimen import Specimen
from tests.fuzz.worker import make_input

MOST = 1 << 20
"""Bytes of a tensor that is compared."""

Tensors = dict[str, list[object]]
"""Key -> dtype, shape and bytes in hexadecimal."""


def main(corpus: Path, kind: str, seed: str, count: int, failing: Path) -> None:
    """Try all inputs and print what came of them."""
    found = [Specimen.get(folder) for folder in sorted(corpus.iterdir()) if folder.is_dir()]
    outcomes: Counter[str] = Counter()
    with TemporaryDirectory() as inside:
        known = [one for one in found if _is_read_by_both(one, kind, Path(inside))]
        for number in range(count):
            one = make_input(known, seed, number)
            outcome = _compare(one, kind, Path(inside))
            outcomes[outcome] += 1
            if outcome == "other tensors":
                failing.mkdir(exist_ok=True)
                (failing / f"{number}-{one.opened}").write_bytes(one.files[one.opened])
    print(json.dumps(outcomes))


def _is_read_by_both(specimen: Specimen, kind: str, folder: Path) -> bool:
    return _compare(specimen, kind, folder) == "same tensors"


def _compare(specimen: Specimen, kind: str, folder: Path) -> str:
    path = folder / specimen.opened
    path.write_bytes(specimen.files[specimen.opened])
    try:
        ours = _by_ckptfix(path)
    except CkptfixError:
        return "ckptfix refuses"
    if ours is None:
        return "too large"
    theirs = _in_a_fork(path, kind)
    if theirs is None:
        return "the library refuses"
    return "same tensors" if theirs == ours else "other tensors"


def _by_ckptfix(path: Path) -> Tensors | None:
    checkpoint = open_checkpoint(f"{path}#.")
    if any(ref.spec.nbytes > MOST for ref in checkpoint.tensors.values()):
        return None
    with Reader() as reader:
        return {
            key: [f"torch.{ref.spec.dtype.torch_name}", list(ref.spec.shape), bytes(reader.read(ref)).hex()]
            for key, ref in checkpoint.tensors.items()
        }


def _in_a_fork(path: Path, kind: str) -> Tensors | None:
    """Read with the library; None where it raises or ends."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            loaded = load_file(path) if kind == "safetensors" else torch.load(path, weights_only=True)
            tensors = {
                key: [str(tensor.dtype), list(tensor.shape), bytes(to_bytes(tensor)).hex()]
                for key, tensor in _flat(loaded, "")
            }
            with os.fdopen(writing, "w") as pipe:
                json.dump(tensors, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        written = pipe.read()
    os.waitpid(pid, 0)
    found: Tensors | None = json.loads(written) if written else None
    return found


def _flat(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Give every tensor with its path. Raises TypeError where a key is a name for neither side."""
    if isinstance(value, torch.Tensor):
        yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        if not isinstance(key, str | int):
            raise TypeError(type(key).__name__)
        yield from _flat(inner, f"{path}.{key}" if path else str(key))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
