"""The law of inverses: there, back, and every byte is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from ckptfix import adapt, load_recipe
from ckptfix.api import invert
from ckptfix.cli.main import run
from ckptfix.execute.evaluate import evaluate, to_bytes
from ckptfix.layout import expand, extent, names_of, parse_tensor
from ckptfix.planning import Plan, make_plan
from ckptfix.planning.invert import invert_plan
from ckptfix.targets.base import spec_of
from ckptfix.tensors import Manifest


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def manifest(tensors: dict[str, Tensor]) -> Manifest:
    return Manifest({key: spec_of(tensor) for key, tensor in tensors.items()})


def run_plan(plan: Plan, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    plan.raise_for_errors()
    return {key: evaluate(row.expr, tensors.__getitem__, lambda seed: {}) for key, row in plan.rows.items()}


def there_and_back(recipe: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Plan]:
    """Apply a recipe without a target, its inverse with the source's own shapes as the target."""
    plan = make_plan(load_recipe({"ckptfix": 1, **recipe}), manifest(tensors), Manifest({}))
    converted = run_plan(plan, tensors)
    inversion = invert_plan(plan)
    assert inversion.is_lossless, inversion.to_text()
    assert load_recipe(inversion.to_text()).digest == load_recipe(inversion.to_values()).digest
    back = make_plan(load_recipe(inversion.to_text()), manifest(converted), manifest(tensors))
    return run_plan(back, converted), plan


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, tensor in left.items():
        assert tensor.dtype == right[key].dtype and tensor.shape == right[key].shape, key
        assert to_bytes(tensor) == to_bytes(right[key]), key


BLOCKS = {
    f"module.blocks.{i}.{key}": numbers(*shape) + i
    for i in range(11)
    for key, shape in {
        "qkv.weight": (6, 2),
        "qkv.bias": (6,),
        "fc.weight": (3, 4),
        "proj.weight": (5, 3),
        "patch.weight": (4, 12),
        "experts.0": (2, 3),
        "experts.1": (2, 3),
    }.items()
}
RULES: dict[str, dict[str, Any]] = {
    "shift": {"op": "rename", "map": {"blocks.{i}.{p:**}": "layers.{i+1}.{p}"}},
    "plain": {"op": "rename", "map": {"blocks.{i}.fc.{p}": "mlp_{i}.{p}", "blocks.{i}.qkv.{p}": "att.{i}.{p}"}},
    "regroup": {"op": "rename", "map": {"blocks.{i}.experts.{e}": "experts.{e}.of.{i}"}},
    "computed": {"op": "rename", "map": {"blocks.{i:int}.fc.weight": "stage{i//4}.{i%4}.w"}},
    "merged": {"op": "rename", "map": {"blocks.{i}.fc.*": "fc.{i}"}},
    "transpose": {"op": "rearrange", "keys": "**.proj.weight", "layout": "o i -> i o"},
    "unfold": {
        "op": "rearrange",
        "keys": "**.patch.weight",
        "layout": "o (c h w) -> o c h w",
        "sizes": {"h": 2, "w": 2},
    },
    "split": {
        "op": "rearrange",
        "from": "blocks.{i}.qkv.{p}",
        "to": ["blocks.{i}.q.{p}", "blocks.{i}.k.{p}", "blocks.{i}.v.{p}"],
        "layout": "(q+k+v) ... -> q ..., k ..., v ...",
    },
    "stack": {
        "op": "rearrange",
        "from": "blocks.{i}.experts.{e}",
        "to": "blocks.{i}.experts",
        "layout": "e o i -> e i o",
    },
    "swap halves": {"op": "rearrange", "keys": "**.qkv.*", "layout": "(a+b) ... -> (b+a) ..."},
    "reverse": {"op": "take", "keys": "**.fc.weight", "layout": "o i", "axis": "o", "index": [2, 0, 1]},
    "tie": {"op": "copy", "from": "blocks.0.fc.weight", "to": "tied"},
    "pad": {
        "op": "resize",
        "keys": "**.proj.weight",
        "layout": "o i",
        "axes": {"o": 8, "i": 5},
        "mode": "pad",
        "fill": -1.5,
    },
    "no extent changes": {"op": "resize", "keys": "**.fc.weight", "layout": "o i", "axes": {"o": 3}, "mode": "linear"},
    "wider": {"op": "cast", "keys": "**.fc.*", "dtype": "F64"},
}


@pytest.mark.parametrize("name", RULES)
def test_every_exact_rule_leads_back(name: str) -> None:
    back, _ = there_and_back({"source": {"strip": ["module."]}, "rules": [RULES[name]]}, BLOCKS)
    assert_equal(back, BLOCKS)


@given(st.lists(st.sampled_from(sorted(RULES)), min_size=1, max_size=5, unique=True))
@settings(max_examples=60, deadline=None)
def test_rules_in_a_row_lead_back(names: list[str]) -> None:
    rules = [{**RULES[name], "optional": True} for name in names]
    back, _ = there_and_back({"source": {"strip": ["module."]}, "rules": rules}, BLOCKS)
    assert_equal(back, BLOCKS)


def test_what_can_be_written_with_placeholders_is() -> None:
    _, plan = there_and_back({"source": {"strip": ["module."]}, "rules": [RULES["shift"], RULES["transpose"]]}, BLOCKS)
    text = invert_plan(plan).to_text()
    assert '- {op: rename, map: {"layers.{i:int}.{p:**}": "blocks.{i-1}.{p}"}}' in text
    assert '- {op: rearrange, keys: ["**.proj.weight"], layout: "i o -> o i"}' in text
    assert '- {op: rename, map: {"{k:**}": "module.{k}"}}' in text


PADDED = [
    ("a b", ("a", "b")),
    ("a (b c) d", ("b", "c")),
    ("a (b c) d", ("a", "c")),
    ("1 (p + (h w)) c", ("h", "w")),
    ("(p + v) ...", ("v",)),
]


@st.composite
def pads(draw: st.DrawFn) -> tuple[dict[str, Any], Tensor]:
    """Draw a pad along axes of a layout, and a tensor for it."""
    layout, listed = draw(st.sampled_from(PADDED))
    axes = expand(parse_tensor(layout), 2) if "..." in layout else parse_tensor(layout)
    sizes = {name: draw(st.integers(1, 4)) for axis in axes for name in names_of(axis)}
    fill = draw(st.sampled_from([0.0, 2.5, "mean"] if len(listed) == 1 else [0.0, 2.5]))
    rule = {
        "op": "resize",
        "keys": "w",
        "layout": layout,
        "axes": {name: sizes[name] + draw(st.integers(0, 3)) for name in listed},
        "mode": "pad",
        "fill": fill,
        "sizes": {name: size for name, size in sizes.items() if name.isidentifier()},
    }
    return rule, numbers(*(extent(axis, sizes) or 0 for axis in axes))


@given(pads())
@settings(max_examples=150, deadline=None)
def test_every_pad_is_cropped_again(drawn: tuple[dict[str, Any], Tensor]) -> None:
    rule, tensor = drawn
    back, plan = there_and_back({"rules": [rule]}, {"w": tensor})
    assert_equal(back, {"w": tensor})
    changed = any(rule["sizes"][name] != size for name, size in rule["axes"].items())
    assert len(invert_plan(plan).to_values()["rules"]) == changed


def test_a_pad_of_unlike_tensors_to_the_extents_of_the_target() -> None:
    rule = {"op": "resize", "keys": "*.w", "layout": "v c", "axes": ["v"], "mode": "pad", "fill": "mean"}
    have = {"a.w": numbers(3, 2), "b.w": numbers(4, 2), "c.w": numbers(3, 2), "d.w": numbers(5, 2)}
    want = manifest({key: numbers(5, 2) for key in have})
    plan = make_plan(load_recipe({"ckptfix": 1, "rules": [rule]}), manifest(have), want)
    inversion = invert_plan(plan)
    assert inversion.to_values()["rules"] == [
        {"op": "resize", "keys": ["a.w", "c.w"], "layout": "v c", "axes": {"v": 3}, "mode": "crop"},
        {"op": "resize", "keys": ["b.w"], "layout": "v c", "axes": {"v": 4}, "mode": "crop"},
    ]
    padded = run_plan(plan, have)
    back = make_plan(load_recipe(inversion.to_text()), manifest(padded), manifest(have))
    assert_equal(run_plan(back, padded), have)


def test_the_way_back_of_a_pad_names_no_pattern_that_found_nothing() -> None:
    rule = resize("pad", "o i", {"o": 8}) | {"keys": ["**.proj.weight", "**.lm_head.weight"], "optional": True}
    back, plan = there_and_back({"rules": [rule]}, BLOCKS)
    assert_equal(back, BLOCKS)
    (inverse,) = invert_plan(plan).to_values()["rules"]
    assert inverse["keys"] == ["**.proj.weight"]


def resize(mode: str, layout: str, axes: dict[str, int]) -> dict[str, Any]:
    return {"op": "resize", "keys": "**.proj.weight", "layout": layout, "axes": axes, "mode": mode}


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"op": "drop", "keys": "**.fc.weight"}, "11 tensors are dropped"),
        ({"op": "cast", "keys": "**.fc.*", "dtype": "BF16"}, "F32 is rounded to BF16"),
        ({"op": "take", "keys": "**.fc.weight", "layout": "o i", "axis": "o", "index": "0:2"}, "rows are left out"),
        ({"op": "rearrange", "keys": "**.fc.weight", "layout": "o i -> (g o) i", "sizes": {"g": 2}}, "g repeats"),
        (resize("crop", "o i", {"o": 2}), "crop leaves numbers out"),
        (resize("linear", "o i", {"o": 10}), "linear interpolates"),
        (resize("nearest", "o i", {"o": 10}), "nearest interpolates"),
        (resize("bicubic", "o i", {"o": 10, "i": 6}), "bicubic interpolates"),
        (resize("pinv", "o i", {"o": 10, "i": 6}), "pinv interpolates"),
        (resize("geometric", "o i", {"o": 7}), "geometric interpolates"),
        (resize("tile", "o i", {"i": 6}), "tile repeats: of equal parts one would be chosen"),
        (resize("sum", "o i", {"i": 1}), "sum adds numbers up"),
        (resize("mean", "o i", {"i": 1}), "mean adds numbers up"),
    ],
)
def test_a_lossy_rule_is_listed_and_not_guessed(rule: dict[str, Any], why: str) -> None:
    plan = make_plan(load_recipe({"ckptfix": 1, "rules": [rule]}), manifest(BLOCKS), Manifest({}))
    inversion = invert_plan(plan)
    ((origin, inverse),) = inversion.undone
    assert not inversion.is_lossless and inverse.rules == ()
    assert inverse.why is not None and why in inverse.why and origin.line == 1
    assert f"# recipe:1: {rule['op']}: lossy: {inverse.why}" in inversion.to_text()


def test_on_the_command_line_there_and_back_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, there, back = tmp_path / "a.pth", tmp_path / "b.safetensors", tmp_path / "c.pth"
    torch.save(BLOCKS, source)
    recipe = {"ckptfix": 1, "source": {"strip": ["module."]}, "rules": [RULES["split"], RULES["stack"]]}
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    names = {key.removeprefix("module."): tensor for key, tensor in BLOCKS.items()}
    shapes = run_plan(make_plan(load_recipe({**recipe, "source": {}}), manifest(names), Manifest({})), names)
    (tmp_path / "t.json").write_text(json.dumps(manifest(shapes).to_json()))
    target = f"shapes:{tmp_path / 't.json'}"
    adapt(source, target, there, tmp_path / "r.json")
    assert run(["invert", str(tmp_path / "r.json"), str(source), target, "-o", str(tmp_path / "i.yaml")]) == 0
    assert capsys.readouterr().out == ""
    adapt(there, f"shapes:{source}", back, tmp_path / "i.yaml")
    assert_equal(torch.load(back, weights_only=True), BLOCKS)
    assert invert(tmp_path / "r.json", source, target).is_lossless
    lossy = {"ckptfix": 1, "rules": [{"op": "drop", "keys": "**.fc.weight"}]}
    (tmp_path / "l.json").write_text(json.dumps(lossy))
    assert run(["invert", str(tmp_path / "l.json"), str(source), str(source)]) == 1
    assert "drop: lossy: 11 tensors are dropped" in capsys.readouterr().err


def test_optional_patterns_that_found_nothing_are_left_out(tmp_path: Path) -> None:
    save_file({"a.proj.weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "source.safetensors")
    save_file({"a.proj.weight": torch.zeros(3, 2)}, tmp_path / "target.safetensors")
    rule = {"op": "rearrange", "optional": True, "keys": ["**.proj.weight", "**.head.weight"], "layout": "o i -> i o"}
    found = invert({"ckptfix": 1, "rules": [rule]}, tmp_path / "source.safetensors", tmp_path / "target.safetensors")
    assert found.to_values()["rules"] == [{"op": "rearrange", "keys": ["**.proj.weight"], "layout": "i o -> o i"}]


def test_a_key_that_no_recipe_can_write_is_lossy(tmp_path: Path) -> None:
    save_file({"a.*.w": torch.zeros(2)}, tmp_path / "source.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "target.safetensors")
    recipe = {"ckptfix": 1, "rules": [{"op": "rename", "map": {"a.{i}.w": "w"}}]}
    found = invert(recipe, tmp_path / "source.safetensors", tmp_path / "target.safetensors")
    assert not found.is_lossless and "rename: lossy: the key 'a.*.w'" in found.to_text()
