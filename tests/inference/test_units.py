"""Repeated blocks: what repeats, and which block is which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.inference.infer import infer
from ckptfix.inference.lockstep import match_numbered
from ckptfix.inference.reading import read_keys
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.slots import is_sorted, read_slots
from ckptfix.inference.units import Level, Unit, align, find_levels
from ckptfix.tensors import DType, TensorSpec
from tests.inference.sides import fused, split
from tests.language.making import manifest

Shapes = dict[str, tuple[int, ...]]


def levels(shapes: Shapes) -> dict[str, Level]:
    tensors = manifest(shapes)
    return {level.template: level for level in find_levels(tensors.tensors, read_keys(tensors))}


def renamed(shapes: Shapes, **words: str) -> Shapes:
    return {".".join(words.get(word, word) for word in key.split(".")): shape for key, shape in shapes.items()}


def links(have: Shapes, want: Shapes) -> dict[str, str]:
    """Give the source of each target key that one tensor makes."""
    found = infer(manifest(have), manifest(want))
    return {link.target_keys[0]: link.source_keys[0] for link in found.links if len(link.source_keys) == 1}


def test_levels() -> None:
    found = levels(fused(4))
    assert list(found) == ["h.#"]
    units = found["h.#"].units
    assert [unit.index for unit in units] == [(0,), (1,), (2,), (3,)]
    assert units[2].keys["attn.qkv.weight"] == "h.2.attn.qkv.weight"
    assert found["h.#"].keys == {key for key in fused(4) if key.startswith("h.")}
    assert units[0].numel * 4 == found["h.#"].numel


def test_levels_nest_and_number_inside_a_word() -> None:
    block: Shapes = {"conv.weight": (4, 4, 3, 3), "bn.weight": (4,)}
    found = levels({f"layer{i}.{j}.{k}": shape for i in (1, 2) for j in (0, 1, 10) for k, shape in block.items()})
    assert found["layer#.#"].depth == 2
    assert [unit.index for unit in found["layer#.#"].units] == [(i, j) for i in (1, 2) for j in (0, 1, 10)]


def test_numbered_modules_are_no_blocks() -> None:
    assert levels({f"features.{i}.weight": (4, 4) for i in range(6)}) == {}


def test_blocks_counted_with_letters() -> None:
    block: Shapes = {"conv/kernel:0": (3, 3, 4, 4), "bn/gamma:0": (4,)}
    found = levels({f"group_{letter}/{key}": shape for letter in "abc" for key, shape in block.items()})
    assert [unit.index for unit in found["group.#"].units] == [(0,), (1,), (2,)]


def units(sizes: list[int]) -> list[Unit]:
    return [Unit((index,), {"w": f"{index}.w"}, numel=size) for index, size in enumerate(sizes)]


SIZES = st.lists(st.sampled_from([100, 200, 400]), max_size=7)


@given(SIZES, SIZES)
def test_align_keeps_the_order_and_takes_the_most(left: list[int], right: list[int]) -> None:
    pairs = align(units(left), units(right))
    indices = [(one.index[0], other.index[0]) for one, other in pairs]
    assert all(left[i] == right[j] for i, j in indices)
    assert indices == sorted(indices)
    assert len({i for i, _ in indices}) == len({j for _, j in indices}) == len(indices)
    best = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left)):
        for j in range(len(right)):
            same = best[i][j] + left[i] if left[i] == right[j] else 0
            best[i + 1][j + 1] = max(same, best[i][j + 1], best[i + 1][j])
    assert sum(one.numel for one, _ in pairs) == best[-1][-1]


@pytest.mark.parametrize(("have", "want"), [(6, 4), (4, 6)])
def test_depth_is_cut_or_grown_from_the_end(have: int, want: int) -> None:
    made = links(fused(have), split(want))
    for i in range(min(have, want)):
        assert made[f"layers.{i}.mlp.fc1.weight"] == f"h.{i}.mlp.fc1.weight"
        assert made[f"layers.{i}.norm2.bias"] == f"h.{i}.ln_2.bias"
    assert not [key for key in made if key.startswith(tuple(f"layers.{i}." for i in range(have, want)))]


def test_blocks_of_one_size_by_chance_are_not_paired() -> None:
    have = {f"a.{i}.{name}": shape for i in range(4) for name, shape in {"x.w": (6, 10), "y.w": (3, 20)}.items()}
    want = {f"b.{i}.{name}": shape for i in range(4) for name, shape in {"x.w": (7, 10), "y.w": (5, 10)}.items()}
    assert sum(a * b for a, b in list(have.values())[:2]) == sum(a * b for a, b in list(want.values())[:2])
    assert links(have, want) == {}


UP: Shapes = {"weight": (40, 24), "bias": (40,)}
DOWN: Shapes = {"weight": (24, 40), "bias": (24,)}


@pytest.mark.parametrize(("parameters", "found"), [(("weight",), 0), (("weight", "bias"), 4 * 3)])
def test_equal_numbers_are_no_order(parameters: tuple[str, ...], found: int) -> None:
    have: Shapes = {}
    want: Shapes = {}
    for i in range(3):
        for leaf in parameters:
            have |= {f"h.{i}.mlp.dense_4h_to_h.{leaf}": DOWN[leaf], f"h.{i}.mlp.dense_h_to_4h.{leaf}": UP[leaf]}
            want |= {f"layers.{i}.mlp.fc1.{leaf}": UP[leaf], f"layers.{i}.mlp.fc2.{leaf}": DOWN[leaf]}
    made = links(have, want)
    assert len(made) == found
    for target, source in made.items():
        assert ("fc1" in target) == ("h_to_4h" in source), target


def test_two_towers_that_names_tell_apart() -> None:
    have = {f"{tower}.{key}": shape for tower in ("visual", "text") for key, shape in fused(3).items()}
    want = {f"{tower}.{key}": shape for tower in ("text_model", "vision_model") for key, shape in split(3).items()}
    made = links(have, want)
    assert len(made) == 2 * (3 + 12 * 3)
    for target, source in made.items():
        assert target.startswith("vision") == source.startswith("visual"), target


def test_numbered_tensors_go_in_the_order_of_their_numbers() -> None:
    shapes = list(fused(1).values())
    have = manifest({f"w{n}": shapes[n] for n in sorted(range(len(shapes)), key=str)})
    want = manifest(fused(1))
    found = match_numbered(have, want)
    assert found is not None
    assert [(link.source_keys[0], link.target_keys[0]) for link in found] == [
        (f"w{n}", key) for n, key in enumerate(want)
    ]
    assert infer(have, want, Allowed(order=False)).links != found


@pytest.mark.parametrize("change", ["other word", "other shape", "one more", "two numbers"])
def test_lockstep_needs_all_of_both(change: str) -> None:
    shapes = list(fused(1).values())
    have: Shapes = {f"w{n}": shape for n, shape in enumerate(shapes)}
    match change:
        case "other word":
            have = {"x0" if key == "w0" else key: shape for key, shape in have.items()}
        case "other shape":
            have["w3"] = (9, 9)
        case "one more":
            have["w99"] = (1,)
        case _:
            have = {f"0.{key}": shape for key, shape in have.items()}
    assert match_numbered(manifest(have), manifest(fused(1))) is None


def test_wrapped_names_lead_to_the_same_blocks() -> None:
    plain = links(fused(), split())
    wrapped = links({f"module.{key}": shape for key, shape in fused().items()}, split())
    assert len(plain) == 3 + 12 * 3
    assert {key: f"module.{source}" for key, source in plain.items()} == wrapped
    assert links(renamed(fused(), h="encoder"), split()).keys() == plain.keys()


def test_whole_numbers_that_come_first_hide_no_sorting() -> None:
    """As safetensors lists them, which sorts the tensors of each dtype for themselves."""
    names = ("bn.num_batches_tracked", "other.num_batches_tracked", "bn.weight", "conv.weight", "other.weight")
    kinds = [DType.I64 if "num" in name else DType.F32 for name in names]
    tensors = {name: TensorSpec((), kind) for name, kind in zip(names, kinds, strict=True)}
    assert is_sorted(read_slots(tensors, read_keys(tensors)))
    shuffled = {name: tensors[name] for name in (*names[:2], *names[:1:-1])}
    assert not is_sorted(read_slots(shuffled, read_keys(shuffled)))
