"""Small sound files of every format that can be opened. What is fuzzed is made from these."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn

from ckptfix import adapt
from tests.formats.test_torch_tar import _members, _pack
from tests.fuzz.specimen import Files, Specimen


def write_corpus(name: str, folder: Path) -> None:
    """Write the specimens of a format into folders of their own."""
    for number, specimen in enumerate(MAKERS[name]()):
        (folder / str(number)).mkdir(parents=True)
        specimen.put(folder / str(number))


def _state() -> dict[str, Any]:
    """A few tensors of every kind of place: shared, turned, 0-d, empty, of odd dtypes."""
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "a.weight": base,
        "a.turned": base.t(),
        "a.part": base[1:, 2:],
        "half": torch.arange(3).bfloat16(),
        "flags": torch.tensor([True, False]),
        "steps": torch.tensor(7),
        "none": torch.empty(0, 2),
        "phase": torch.tensor([1 + 2j]).conj(),
        "\N{LATIN SMALL LETTER E WITH ACUTE}": torch.ones(1, dtype=torch.int8),
    }


def _training() -> dict[str, Any]:
    """What a training run saves: weights, an optimizer, numbers, text and a class of its own."""
    module = nn.Sequential(OrderedDict(fc=nn.Linear(2, 2)))
    module.get_parameter("fc.weight").data = torch.arange(4.0).reshape(2, 2)
    module.get_parameter("fc.bias").data = torch.arange(2.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"state_dict": module.state_dict(), "optimizer": optimizer.state_dict()}
    return {**state, "epoch": 3, "name": "run", "path": Path("x"), "tags": {"a", "b"}}


def _by_torch(value: object, name: str = "x.pth", **options: Any) -> Specimen:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return Specimen(name, {name: out.getvalue()})


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))


def _repack(data: bytes, compression: int) -> bytes:
    """Write the archive anew, as another zip writer than torch's does."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", compression) as again:
        for info in archive.infolist():
            again.writestr(zipfile.ZipInfo(info.filename), archive.read(info), compression)
    return out.getvalue()


def _zips() -> list[Specimen]:
    saved = [_by_torch(_state()), _by_torch(_training()), _by_torch(_module()), _by_torch(_state(), pickle_protocol=4)]
    saved += [Specimen("x.pth", {"x.pth": _repack(saved[1].files["x.pth"], zipfile.ZIP_DEFLATED)})]
    quantised = torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8)
    parts = {"q": quantised, "s": torch.eye(2).to_sparse(), "p": nn.Parameter(torch.ones(2))}
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), script)
    arrays = {"w": np.arange(3.0), "n": np.float32(1)}
    return [
        *saved,
        _by_torch(parts),
        Specimen("x.pt", {"x.pt": script.getvalue()}),
        _by_torch(arrays),
        _written("x.pth"),
    ]


def _written(name: str) -> Specimen:
    """Give what ckptfix writes: it has a receipt."""
    with tempfile.TemporaryDirectory() as inside:
        source, out = Path(inside, "source.pth"), Path(inside, name)
        torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1).half()}, source)
        adapt(source, source, out)
        return Specimen(name, {name: out.read_bytes()})


def _legacies() -> list[Specimen]:
    old = {"_use_new_zipfile_serialization": False}
    return [_by_torch(_state(), **old), _by_torch(_training(), **old), _by_torch(_state(), pickle_protocol=1, **old)]


def _tars() -> list[Specimen]:
    state = {key: value for key, value in _state().items() if not value.is_conj()}
    found = []
    for value in (state, {"state_dict": OrderedDict(state), "epoch": 3}):
        with tempfile.TemporaryDirectory() as inside:
            path = _pack(Path(inside, "x.pth"), _members(value, list(state.values())))
            found.append(Specimen("x.pth", {"x.pth": path.read_bytes()}))
    return found


def _arrays() -> dict[str, Any]:
    base = np.arange(6, dtype="<f4").reshape(2, 3)
    return {"w": base, "f": np.asfortranarray(base), "big": base.astype(">f8"), "n": np.int64(3), "e": np.zeros((0, 2))}


def _pickles() -> list[Specimen]:
    model = {"model": _arrays(), "__author__": "someone", "matching_heuristics": True}
    values = [_arrays(), model, {"w": torch.arange(3.0), "half": torch.ones(2).half()}]
    bodies = [pickle.dumps(value, protocol) for value in values for protocol in (2, 4, 5)]
    return [Specimen("x.pkl", {"x.pkl": body}) for body in bodies]


def _npzs() -> list[Specimen]:
    found = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **_arrays(), names=np.array(["a"]), o=np.array({"k": np.ones(2)}, dtype=object))
        found.append(Specimen("x.npz", {"x.npz": out.getvalue()}))
    return found


def _npys() -> list[Specimen]:
    found = []
    for value in (_arrays(), [_arrays()]):
        out = io.BytesIO()
        held = np.empty((), dtype=object)
        held[()] = value
        np.save(out, held, allow_pickle=True)
        found.append(Specimen("x.npy", {"x.npy": out.getvalue()}))
    return found


def _plain_state() -> dict[str, torch.Tensor]:
    kept = {key: value.contiguous().clone() for key, value in _state().items() if not value.is_conj()}
    return kept | {"f8": torch.ones(3).to(torch.float8_e4m3fn)}


def _safetensors() -> list[Specimen]:
    with tempfile.TemporaryDirectory() as inside:
        path = Path(inside, "x.safetensors")
        save_file(_plain_state(), path, {"format": "pt", "note": "text"})
        return [Specimen(path.name, {path.name: path.read_bytes()}), _written("x.safetensors")]


def _sharded() -> list[Specimen]:
    state = _plain_state()
    names = {key: f"model-0000{1 + (number % 2)}-of-00002.safetensors" for number, key in enumerate(state)}
    files: Files = {}
    for name in set(names.values()):
        with tempfile.TemporaryDirectory() as inside:
            save_file({key: state[key] for key in state if names[key] == name}, Path(inside, name))
            files[name] = Path(inside, name).read_bytes()
    index = {"metadata": {"total_size": sum(value.nbytes for value in state.values())}, "weight_map": names}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    saved = {"p.bin": _by_torch({"a": torch.ones(2)}).files["x.pth"]}
    saved["pytorch_model.bin.index.json"] = json.dumps({"metadata": {}, "weight_map": {"a": "p.bin"}}).encode()
    return [Specimen(".", files), Specimen("pytorch_model.bin.index.json", saved), _written_folder("x.safetensors")]


def _written_folder(name: str) -> Specimen:
    """Give the folder that ckptfix writes: shards of at most 20 bytes of tensors, or a distributed checkpoint."""
    with tempfile.TemporaryDirectory() as inside:
        source, out = Path(inside, "source.pth"), Path(inside, "out", name)
        torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1).half()}, source)
        out.parent.mkdir()
        adapt(source, source, out, max_shard_size=20)
        folder = out if out.is_dir() else out.parent
        return Specimen(".", {path.name: path.read_bytes() for path in sorted(folder.iterdir())})


def _distributed() -> list[Specimen]:
    """Give what torch saves of one rank. Its metadata hold a random number, which is left out."""
    found = []
    for value in ({"model": _state_of_ranks(), "epoch": 3}, {"a": torch.ones(2, 2)}):
        with tempfile.TemporaryDirectory() as inside:
            dcp.save(value, checkpoint_id=inside, no_dist=True)
            path = Path(inside, ".metadata")
            metadata = pickle.loads(path.read_bytes())
            metadata.storage_meta = None
            path.write_bytes(pickle.dumps(metadata))
            found.append(Specimen(".", {one.name: one.read_bytes() for one in sorted(Path(inside).iterdir())}))
    return [*found, _written_folder("out.dcp")]


def _state_of_ranks() -> Mapping[str, torch.Tensor]:
    return {key: value for key, value in _plain_state().items() if key.isascii()}


def _distributed_files() -> list[Specimen]:
    written = _written_folder("out.dcp")
    return [Specimen(name, {name: data}) for name, data in written.files.items() if name.endswith(".distcp")]


MAKERS: dict[str, Callable[[], list[Specimen]]] = {
    "npy": _npys,
    "npz": _npzs,
    "pickle": _pickles,
    "safetensors": _safetensors,
    "sharded checkpoint": _sharded,
    "torch distributed": _distributed,
    "torch distributed file": _distributed_files,
    "torch legacy": _legacies,
    "torch tar": _tars,
    "torch zip": _zips,
}
"""The name of each format -> what makes its specimens."""
