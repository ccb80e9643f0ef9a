"""`torch.save` in both containers: every kind of tensor to the bit, every value as it was."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfix.formats import open_checkpoint, open_contents

from .making import CONTAINERS, assert_same

container = pytest.mark.parametrize("kind", CONTAINERS)


def _tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    numbers = torch.tensor([1.5, -0.0, float("nan"), float("inf")])
    complex_ = torch.complex(numbers, numbers.flip(0))
    found = {
        f"dtype.{str(dtype).removeprefix('torch.')}": torch.randint(0, 2, (3, 2)).to(dtype)
        for dtype in (
            torch.bool,
            torch.uint8,
            torch.int8,
            torch.uint16,
            torch.int16,
            torch.uint32,
            torch.int32,
            torch.uint64,
            torch.int64,
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
            torch.complex64,
            torch.complex128,
            torch.float8_e4m3fn,
            torch.float8_e5m2,
            torch.float8_e4m3fnuz,
            torch.float8_e5m2fnuz,
            torch.float8_e8m0fnu,
        )
    }
    return found | {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0),
        "empty.axis": torch.zeros(3, 0, 2),
        "empty.slice": base[4:],
        "base": base,
        "alias": base,
        "transposed": base.t(),
        "column": base[:, 2],
        "every.second": base[1::2, ::3],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 300_000),
        "permuted": torch.arange(120.0).reshape(2, 3, 4, 5).permute(3, 0, 2, 1),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "buffer": torch.nn.Buffer(torch.ones(2)),
        "conjugate": complex_.conj(),
        "negative": complex_.clone().conj().imag,
        "negative.int": torch._neg_view(torch.tensor([1, -5, -(2**63)])),
        "negative.bf16": torch._neg_view(torch.tensor([1.0, 0.0], dtype=torch.bfloat16)),
        "both": torch._neg_view(complex_.conj()),
        "large": torch.randn(600_000),
        "large.transposed": torch.randn(700, 600).t(),
        "rank": torch.arange(2.0).reshape([1] * 40 + [2]).transpose(0, 40),
    }


@container
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_every_kind_of_tensor(kind: str, protocol: int, tmp_path: Path) -> None:
    tensors = _tensors()
    torch.save(tensors, tmp_path / "x.pth", pickle_protocol=protocol, **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert checkpoint.format == kind
    assert_same(checkpoint, tensors)
    assert checkpoint.opaque == ()
    assert ("base", "alias") in checkpoint.aliases
    assert not any("transposed" in group for group in checkpoint.aliases)


@container
def test_reads_a_training_checkpoint(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 6, 4)).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 7,
        "global_step": 2**70,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict((f"model.{key}", value) for key, value in model.state_dict().items()),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "k": {"a.ckpt": torch.tensor(0.5)}}},
        "hyper_parameters": {"lr": 1e-3, "layers": [1, 2, (3, None)], "flag": True, "names": {"a", "b"}, "z": 1 + 2j},
        "counts": Counter("aab"),
        "default": defaultdict(list, {"k": [b"raw", bytearray(b"array")]}),
        "shape": torch.Size([1, 2]),
        "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16,
    }
    torch.save(saved, tmp_path / "x.ckpt", **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.ckpt")
    assert checkpoint.select == "state_dict"
    assert_same(checkpoint, dict(saved["state_dict"]))
    assert checkpoint.optimizers == ("optimizer_states.0",)
    assert checkpoint.opaque == ()


@container
def test_reads_a_whole_pickled_module_as_its_state_dict(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(1, 2, 1, bias=False), norm=torch.nn.BatchNorm2d(2)))
    model.register_buffer("transient", torch.zeros(1), persistent=False)
    model.register_buffer("kept", torch.ones(1))
    torch.save({"epoch": 1, "model": model}, tmp_path / "x.pt", **CONTAINERS[kind])
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.select == "model"
    assert_same(checkpoint, dict(model.state_dict()))
    assert ("model", "torch.nn.modules.container.Sequential") in [(at, str(value)) for at, value in checkpoint.opaque]


@container
def test_reads_every_published_layout_of_keys_from_python_2(kind: str, tmp_path: Path) -> None:
    torch.save(
        {b"conv.weight": torch.ones(2), "naïve".encode(): torch.zeros(1)}, tmp_path / "x.pth", **CONTAINERS[kind]
    )
    assert list(open_checkpoint(tmp_path / "x.pth").tensors) == ["conv.weight", "naïve"]


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**100), 2**100),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
)
_values: Any = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner, inner, inner),
        st.tuples(inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=30,
)


def _plain(node: Any) -> Any:
    """The Python value that an inert value stands for."""
    if hasattr(node, "items") and not isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items}
    return type(node)(map(_plain, node)) if isinstance(node, list | tuple) else node


@settings(max_examples=80, deadline=None)
@given(value=_values, protocol=st.integers(2, 5), kind=st.sampled_from(sorted(CONTAINERS)))
def test_values_are_what_was_saved(value: Any, protocol: int, kind: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("v") / "x.pth"
    torch.save(value, path, pickle_protocol=protocol, **CONTAINERS[kind])
    assert _plain(open_contents(path).root) == value


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.text("abcé.", min_size=1, max_size=8), min_size=1, max_size=5, unique=True),
    shape=st.lists(st.integers(0, 4), max_size=4),
    data=st.data(),
    kind=st.sampled_from(sorted(CONTAINERS)),
)
def test_views_are_what_was_saved(
    keys: list[str], shape: list[int], data: Any, kind: str, tmp_path_factory: Any
) -> None:
    base = torch.randn(shape)
    tensors = {}
    for key in keys:
        order = data.draw(st.permutations(range(base.dim())))
        cut = [slice(data.draw(st.integers(0, 3)), None, data.draw(st.integers(1, 3))) for _ in order]
        tensors[key] = base[tuple(cut)].permute(order)
    path = tmp_path_factory.mktemp("t") / "x.pth"
    torch.save(tensors, path, **CONTAINERS[kind])
    assert_same(open_checkpoint(path), tensors)
