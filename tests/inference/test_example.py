"""A conversion that somebody has already made is found by value, and made again to the bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ckptfix.inference.example.bits import cast_bits
from ckptfix.inference.link import Open
from ckptfix.layout import Layout
from ckptfix.tensors import DType
from tests.inference.learning import check, layouts, learn
from tests.recipes.case import State


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


LAYOUTS = [
    ("o i -> i o", {}),
    ("o i h w -> h w i o", {}),
    ("o i h w -> o (i h w)", {}),
    ("o i h w -> o (h w i)", {}),
    ("(h d) i -> h d i", {"h": 3}),
    ("(h two d) i -> (h d two) i", {"h": 3, "two": 2}),
    ("(h r d) i -> r h d i", {"h": 2, "r": 3}),
    ("o i -> 1 o i 1", {}),
    ("d i -> (g d) i", {"g": 3}),
    ("d i -> (d g) i", {"g": 2}),
]


@settings(max_examples=40, deadline=None)
@given(
    case=st.sampled_from(LAYOUTS),
    extents=st.lists(st.integers(2, 7), min_size=4, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64]),
    seed=st.integers(0, 99),
)
def test_layouts(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[str, dict[str, int]],
    extents: list[int],
    dtype: torch.dtype,
    seed: int,
) -> None:
    layout, given_sizes = case
    left = layout.split(" -> ")[0]
    names = left.replace("(", " ").replace(")", " ").split()
    sizes = {**dict(zip(names, extents, strict=False)), **given_sizes}
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn([sizes[name] for name in names], generator=generator)
    numbers = (flat * 1e6).long() if dtype is torch.int64 else flat.to(dtype)
    source = rearrange(numbers, f"{' '.join(names)} -> {left}")
    example = rearrange_or_repeat(source, layout, {name: sizes[name] for name in given_sizes})
    check(tmp_path_factory.mktemp("layout"), {"a.weight": source}, {"b.weight": example})


def rearrange_or_repeat(tensor: Tensor, layout: str, sizes: dict[str, int]) -> Tensor:
    from einops import repeat as repeat_axes

    operation = repeat_axes if Layout.parse(layout).repeated else rearrange
    return operation(tensor, layout, **sizes)


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(st.integers(2, 6), min_size=2, max_size=4),
    axis=st.integers(0, 1),
    rank=st.integers(1, 3),
    direction=st.sampled_from(["split", "fuse"]),
    seed=st.integers(0, 99),
)
def test_split_and_fuse(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], axis: int, rank: int, direction: str, seed: int
) -> None:
    axis = min(axis, rank - 1)
    shape = [5, 4, 3][:rank]
    shape[axis] = sum(parts)
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    pieces = {f"attn.{name}": part for name, part in zip("qkvo", whole.split(parts, axis), strict=False)}
    sides = ({"attn.fused": whole}, pieces)
    found = check(tmp_path_factory.mktemp("parts"), *(sides if direction == "split" else sides[::-1]))
    assert len(found.links) == 1


def test_split_is_written_alike_for_weight_and_bias(tmp_path: Path) -> None:
    weight, bias = torch.randn(12, 4), torch.randn(12)
    example = {
        f"{name}.{leaf}": part
        for leaf, whole in (("weight", weight), ("bias", bias))
        for name, part in zip("qkv", whole.split([6, 3, 3]), strict=True)
    }
    found = check(tmp_path, {"qkv.weight": weight, "qkv.bias": bias}, example)
    assert layouts(found) == ["(q + k + v) ... -> q ..., k ..., v ..."] * 2
    assert {link.why for link in found.links} == {"equal to the bit"}


def test_grouped_heads(tmp_path: Path) -> None:
    fused = torch.randn(2 * (3 + 1 + 1) * 4, 8)
    grouped = fused.reshape(2, 5, 4, 8)
    example = {
        "q.weight": grouped[:, :3].reshape(24, 8),
        "k.weight": grouped[:, 3].reshape(8, 8),
        "v.weight": grouped[:, 4].reshape(8, 8),
    }
    found = check(tmp_path, {"query_key_value.weight": fused}, example)
    assert layouts(found) == ["(h (q + k + v)) ... -> (h q) ..., (h k) ..., (h v) ..."]
    assert dict(found.links[0].sizes) == {"h": 2}


@pytest.mark.parametrize("direction", ["stack", "unstack"])
def test_experts(direction: str, tmp_path: Path) -> None:
    gates, ups = torch.randn(3, 6, 4), torch.randn(3, 6, 4)
    single = {f"experts.{e}.{name}": rows[e] for e in range(3) for name, rows in (("gate", gates), ("up", ups))}
    fused = {"experts.gate_up": torch.cat([gates, ups], 1)}
    found = check(tmp_path, single, fused) if direction == "stack" else check(tmp_path, fused, single)
    [link] = found.links
    terms = link.sources if direction == "stack" else link.targets
    assert [(term.axis, len(term.keys)) for term in terms] == [("e", 3), ("e", 3)]


def test_swapped_halves(tmp_path: Path) -> None:
    weight = torch.randn(8, 4)
    found = check(tmp_path, {"w": weight}, {"w": torch.cat([weight[4:], weight[:4]])})
    assert layouts(found) == ["(b + a) ... -> (a + b) ..."]


def test_cast_is_noticed(tmp_path: Path) -> None:
    fused, bias = torch.randn(48, 16), torch.randn(48)
    example = split_qkv(bias.to(torch.bfloat16), fused.to(torch.bfloat16))
    found = check(tmp_path, {"qkv.weight": fused, "qkv.bias": bias}, example)
    assert layouts(found) == ["(q + k + v) ... -> q ..., k ..., v ..."] * 2
    assert found.casts == dict.fromkeys(example, DType.BF16)
    assert found.notes == ("6 tensors were cast to BF16",)


@given(st.lists(st.floats(width=32), min_size=1), st.sampled_from([DType.F16, DType.BF16, DType.F64]))
def test_casts_round_as_torch_does(numbers: list[float], dtype: DType) -> None:
    tensor = torch.tensor(numbers, dtype=torch.float32)
    want = tensor.to(getattr(torch, dtype.torch_name or ""))
    made = cast_bits(tensor.numpy().view(np.uint32), DType.F32, dtype)
    have = torch.from_numpy(made.view(f"<i{dtype.bits // 8}")).view(want.dtype)
    assert torch.equal(have.isnan(), want.isnan())
    assert torch.equal(have[~have.isnan()], want[~want.isnan()])


def test_fresh_norms_are_told_apart_by_their_neighbours(tmp_path: Path) -> None:
    source: State = {}
    example: State = {}
    for layer in range(12):
        weight = torch.randn(4, 4)
        for leaf, value in (("weight", torch.ones(4)), ("bias", torch.zeros(4))):
            source[f"blocks.{layer}.norm1.{leaf}"] = example[f"layers.{layer}.before.{leaf}"] = value
            source[f"blocks.{layer}.norm2.{leaf}"] = example[f"layers.{layer}.after.{leaf}"] = value
        source[f"blocks.{layer}.fc.weight"] = example[f"layers.{layer}.dense.weight"] = weight
        source[f"blocks.{layer}.fc.bias"] = example[f"layers.{layer}.dense.bias"] = torch.zeros(4)
    found = check(tmp_path, source, example)
    pairs = {link.source_keys[0]: link.target_keys[0] for link in found.links}
    for layer in range(12):
        assert pairs[f"blocks.{layer}.fc.bias"] == f"layers.{layer}.dense.bias"
    for source, target in pairs.items():
        assert re.findall(r"\.([0-9]+)\.", source) == re.findall(r"\.([0-9]+)\.", target)
    norms = {(source.split(".")[2], target.split(".")[2]) for source, target in pairs.items() if ".norm" in source}
    assert len(norms) == 2
    told = [link for link in found.links if ".norm" in link.source_keys[0]]
    assert all(link.confidence < 1 and "names" in link.evidence for link in told)
    assert any("paired by name" in note for note in found.notes)


def test_zero_biases_go_the_way_of_their_weights(tmp_path: Path) -> None:
    weight = torch.randn(12, 4)
    bias = torch.zeros(12)
    found = check(tmp_path, {"qkv.weight": weight, "qkv.bias": bias}, split_qkv(bias, weight))
    assert layouts(found) == ["(q + k + v) ... -> q ..., k ..., v ..."] * 2
    assert found.fills == {}


def split_qkv(bias: Tensor, weight: Tensor) -> State:
    parts = zip("qkv", weight.chunk(3), bias.chunk(3), strict=True)
    return {key: value for name, w, b in parts for key, value in ((f"{name}.weight", w), (f"{name}.bias", b))}


@pytest.mark.parametrize("direction", ["split", "fuse"])
def test_a_part_of_zeros_goes_with_the_others(direction: str, tmp_path: Path) -> None:
    weight = torch.randn(12, 4)
    bias = torch.cat([torch.randn(4), torch.zeros(4), torch.randn(4)])
    sides = {"qkv.weight": weight, "qkv.bias": bias}, split_qkv(bias, weight)
    found = check(tmp_path, *(sides if direction == "split" else sides[::-1]))
    assert len(found.links) == 2
    assert found.fills == {}


def test_constants_without_a_source_are_fills(tmp_path: Path) -> None:
    weight = torch.randn(4, 4)
    example = {"w": weight, "zeros": torch.zeros(3), "half": torch.full((2, 2), 0.5), "steps": torch.tensor(7)}
    found = check(tmp_path, {"w": weight}, example)
    assert found.fills == {"zeros": 0.0, "half": 0.5, "steps": 7}
    assert len(found.notes) == 2 and all("filled with that" in note for note in found.notes)


def test_tied_in_the_example_alone_is_a_copy(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    found = check(tmp_path, {"wte.weight": weight}, {"wte.weight": weight, "lm_head.weight": weight})
    assert found.copies == {"lm_head.weight": "wte.weight"}


def test_rows(tmp_path: Path) -> None:
    table, head = torch.randn(9, 4), torch.randn(7, 4)
    rows = [4, 0, 6]
    found = check(tmp_path, {"table": table, "head": head}, {"table": table[:5], "head": head[rows]})
    [crop] = found.links
    assert crop.resize == {"layout": "a b", "axes": ["a"], "mode": "crop"}
    assert [(taken.source, taken.rows) for taken in found.taken] == [("head", (4, 0, 6))]


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_resized_grid(mode: str, antialias: bool, tmp_path: Path) -> None:
    table = torch.randn(1, 1 + 49, 8)
    grid = table[:, 1:].reshape(1, 7, 7, 8).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(grid, size=(4, 4), mode=mode, antialias=antialias)
    example = torch.cat([table[:, :1], small.permute(0, 2, 3, 1).reshape(1, 16, 8)], 1)
    found = learn(tmp_path, {"pos": table}, {"pos": example})
    fields = found.links[0].resize
    assert fields is not None
    assert (fields["mode"], fields.get("antialias", False)) == (mode, antialias)
    assert (fields["layout"], fields["sizes"]) == ("a (p + (h w)) c", {"p": 1})


def test_what_no_source_explains_is_said(tmp_path: Path) -> None:
    found = learn(tmp_path, {"w": torch.randn(4, 4), "left": torch.randn(5)}, {"w": torch.randn(4, 4)})
    assert (found.links, set(found.unexplained), set(found.unused)) == ((), {"w"}, {"w", "left"})


def test_numbers_in_no_regular_order_are_not_linked(tmp_path: Path) -> None:
    weight = torch.randn(64)
    found = learn(tmp_path, {"w": weight.reshape(8, 8)}, {"w": weight[torch.randperm(64)].reshape(8, 8)})
    assert found.unexplained == {"w": Open("it holds the numbers of 'w' in no order that a layout says", ("w",))}


def test_new_rows_are_not_made_up(tmp_path: Path) -> None:
    table = torch.randn(8, 4)
    found = learn(tmp_path, {"wte": table}, {"wte": torch.cat([table, torch.randn(2, 4)])})
    why = "it holds all of 'wte'; pad with fill: target keeps the rows that are new"
    assert found.unexplained == {"wte": Open(why, ("wte",))}


ODD: dict[str, tuple[State, State]] = {
    "scalar to one element": ({"scale": torch.tensor(2.65)}, {"scale": torch.tensor([2.65])}),
    "no elements": ({"none": torch.zeros(0, 3)}, {"none": torch.zeros(0, 3)}),
    "not a number": ({"nan": torch.full((3,), float("nan"))}, {"other": torch.full((3,), float("nan"))}),
    "few truths": (
        {"mask": torch.tensor([[True, False], [True, True]])},
        {"m": torch.tensor([[True, True], [False, True]])},
    ),
    "a wider dtype": (
        {"w": torch.arange(6.0).to(torch.float16).reshape(2, 3)},
        {"w": torch.arange(6.0).reshape(2, 3).T},
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tensors(name: str, tmp_path: Path) -> None:
    found = learn(tmp_path, *ODD[name])
    assert (len(found.links), found.unexplained, found.fills) == (1, {}, {})


def test_parts_of_a_source_with_a_rest(tmp_path: Path) -> None:
    weight = torch.randn(12, 4)
    found = check(tmp_path, {"qkv.weight": weight}, {"q.weight": weight[:4], "v.weight": weight[8:]})
    assert [(taken.target, taken.rows) for taken in found.taken] == [
        ("q.weight", (0, 1, 2, 3)),
        ("v.weight", (8, 9, 10, 11)),
    ]
