"""Tensors without strides of their own: sparse, quantised, nested and wrapping ones, read as their parts."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from ckptfix.errors import NoTensors
from ckptfix.formats import open_checkpoint

from .making import CONTAINERS, assert_same, write

container = pytest.mark.parametrize("kind", CONTAINERS)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per.*deprecated"),
]


def _coordinates(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    size = torch.tensor(tensor.size())
    return {"indices": tensor._indices(), "values": tensor._values(), "size": size}


def _by_row(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = {"crow_indices": tensor.crow_indices(), "col_indices": tensor.col_indices(), "values": tensor.values()}
    return parts | {"size": torch.tensor(tensor.size())}


def _by_column(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = {"ccol_indices": tensor.ccol_indices(), "row_indices": tensor.row_indices(), "values": tensor.values()}
    return parts | {"size": torch.tensor(tensor.size())}


def _per_tensor(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    scale, zero = torch.tensor(tensor.q_scale(), dtype=torch.float64), torch.tensor(tensor.q_zero_point())
    return {"int_repr": tensor.int_repr(), "q_scale": scale, "q_zero_point": zero}


def _per_channel(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "int_repr": tensor.int_repr(),
        "q_per_channel_scales": tensor.q_per_channel_scales(),
        "q_per_channel_zero_points": tensor.q_per_channel_zero_points(),
        "q_per_channel_axis": torch.tensor(tensor.q_per_channel_axis()),
    }


def _nested(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "buffer": tensor.values(),
        "sizes": tensor._nested_tensor_size(),
        "strides": tensor._nested_tensor_strides(),
        "storage_offsets": tensor._nested_tensor_storage_offsets(),
    }


_Rare = tuple[Callable[[], torch.Tensor], Callable[[torch.Tensor], dict[str, torch.Tensor]]]
_scales, _zeros = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2])
_RARE: dict[str, _Rare] = {
    "coo": (lambda: torch.randn(3, 4, 5).relu().to_sparse(2), _coordinates),
    "coo, bfloat16": (lambda: torch.randn(3, 4).bfloat16().to_sparse(), _coordinates),
    "coo, empty": (lambda: torch.zeros(3, 4).to_sparse(), _coordinates),
    "coo, complex": (lambda: torch.randn(3, 4, dtype=torch.complex64).to_sparse(), _coordinates),
    "csr": (lambda: torch.randn(3, 4).relu().to_sparse_csr(), _by_row),
    "csc": (lambda: torch.randn(3, 4).relu().to_sparse_csc(), _by_column),
    "bsr": (lambda: torch.randn(4, 6).to_sparse_bsr((2, 3)), _by_row),
    "bsc": (lambda: torch.randn(4, 6).half().to_sparse_bsc((2, 3)), _by_column),
    "qint8": (lambda: torch.quantize_per_tensor(torch.randn(3, 2), 0.1, 3, torch.qint8), _per_tensor),
    "quint8": (lambda: torch.quantize_per_tensor(torch.randn(3, 2).t(), 1e-3, 128, torch.quint8), _per_tensor),
    "qint32": (lambda: torch.quantize_per_tensor(torch.randn(3), 1e-9, 0, torch.qint32), _per_tensor),
    "by channel": (
        lambda: torch.quantize_per_channel(torch.randn(3, 2), _scales, _zeros, 0, torch.qint8),
        _per_channel,
    ),
    "by channel, float": (
        lambda: torch.quantize_per_channel(torch.randn(2, 3), _scales, _zeros.float(), 1, torch.quint8),
        _per_channel,
    ),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2, 3), torch.randn(4, 3)]), _nested),
    "wrapping": (lambda: TwoTensor(torch.ones(2), torch.zeros(2)), lambda two: {"a": two.a, "b": two.b}),
}


@container
@pytest.mark.parametrize("case", _RARE)
def test_reads_the_parts(case: str, kind: str, tmp_path: Path) -> None:
    make, parts = _RARE[case]
    rare = make()
    value = {"plain": torch.ones(2), "rare": rare, "tied": rare}
    torch.save(value, tmp_path / "x.pth", **CONTAINERS[kind])
    # Of what was saved, not of what torch loads: of a nested tensor in the old container it loads other sizes.
    expected = {name: part.contiguous() for name, part in parts(rare).items()}
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert_same(
        checkpoint,
        {"plain": torch.ones(2)}
        | {f"{key}.{name}": part for key in ("rare", "tied") for name, part in expected.items()},
    )
    opaque = [("rare", "torch.testing._internal.two_tensor.TwoTensor")] if case == "wrapping" else []
    assert [(at, str(found)) for at, found in checkpoint.opaque][:1] == opaque
    tied = {group for group in checkpoint.aliases if group[0].startswith("rare.")}
    assert {(f"rare.{name}", f"tied.{name}") for name, part in expected.items() if part.numel()} <= tied


@pytest.mark.parametrize("protocol", [2, 5])
def test_reads_the_parts_from_a_plain_pickle(protocol: int, tmp_path: Path) -> None:
    rare = torch.randn(3, 4).to_sparse()
    path = write(tmp_path / "x.pkl", pickle.dumps({"w": rare, "b": torch.ones(1)}, protocol))
    expected = {f"w.{name}": part for name, part in _coordinates(rare).items()} | {"b": torch.ones(1)}
    assert_same(open_checkpoint(path), expected)


@container
def test_a_quantised_module_is_read(kind: str, tmp_path: Path) -> None:
    module = torch.ao.nn.quantized.Embedding(5, 16)
    state = module.state_dict()
    torch.save(state, tmp_path / "x.pth", **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pth", select=".")
    weight = module.weight()
    assert any(checkpoint.manifest[key].shape == tuple(weight.shape) for key in checkpoint.tensors)


@container
@pytest.mark.parametrize("case", ["meta", "four bits", "jagged"])
def test_lists_what_has_no_parts_that_are_read(case: str, kind: str, tmp_path: Path) -> None:
    made = {
        "meta": lambda: torch.ones(3, device="meta"),
        "four bits": lambda: torch.quantize_per_channel(torch.randn(3, 2), _scales, _zeros.float(), 0, torch.quint4x2),
        "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    }[case]()
    torch.save({"plain": torch.ones(2), "rare": made}, tmp_path / "x.pth", **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert_same(checkpoint, {"plain": torch.ones(2)})
    assert checkpoint.ignored == ("rare",)
    assert [note.partition(" (")[0] for note in checkpoint.notes] == ["'rare' is a tensor that ckptfix does not read"]
    assert "rare" in [at for at, _ in checkpoint.opaque]


def _sparse(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)).relu().to_sparse()


_ALONE: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "one sparse": lambda: {"emb.weight": _sparse(0)},
    "two sparse": lambda: {"a.weight": _sparse(1), "b.weight": _sparse(2)},
    "one quantised": lambda: {"emb.weight": torch.quantize_per_tensor(torch.randn(6), 0.1, 3, torch.quint8)},
    "one by channel": lambda: {
        "emb.weight": torch.quantize_per_channel(torch.randn(3, 2), _scales, _zeros, 0, torch.qint8)
    },
    "one wrapping": lambda: {"emb.weight": TwoTensor(torch.ones(2), torch.zeros(2))},
    "one beside a count": lambda: {"emb.weight": _sparse(3), "count": torch.tensor(7)},
}
_NAMES = {
    "sparse": ("indices", "values", "size"),
    "quantised": ("int_repr", "q_scale", "q_zero_point"),
    "channel": ("int_repr", "q_per_channel_scales", "q_per_channel_zero_points", "q_per_channel_axis"),
    "wrapping": ("a", "b"),
    "count": ("indices", "values", "size"),
}


@container
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", _ALONE)
def test_a_tensor_of_parts_keeps_its_key(case: str, nested: bool, kind: str, tmp_path: Path) -> None:
    state = _ALONE[case]()
    torch.save(
        {"epoch": 3, "state_dict": state, "accuracy": torch.tensor(0.5)} if nested else state,
        tmp_path / "x.pth",
        **CONTAINERS[kind],
    )
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    names = _NAMES[case.split()[-1]]
    expected = [f"{key}.{name}" for key in state if key != "count" for name in names]
    assert list(checkpoint.tensors) == [*expected, *(["count"] if "count" in state else [])]
    assert checkpoint.select == ("state_dict" if nested else "")
    assert checkpoint.notes == open_checkpoint(tmp_path / "x.pth", select=".").notes == ()
    assert [one.path for one in checkpoint.candidates] == [checkpoint.select]


@container
def test_a_tensor_of_parts_alone_is_no_state_dict(kind: str, tmp_path: Path) -> None:
    torch.save([_sparse(0), _sparse(1)], tmp_path / "x.pth", **CONTAINERS[kind])
    with pytest.raises(NoTensors, match="holds no state dict"):
        open_checkpoint(tmp_path / "x.pth")
    assert len(open_checkpoint(tmp_path / "x.pth", select=".").tensors) == 6
