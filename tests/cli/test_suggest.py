"""`suggest`, and what takes its recipe at once: `adapt --suggest` and `load_into(..., recipe="auto")`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn

import ckptfix
from ckptfix.errors import InvalidCall, OutputExists, Unresolved
from ckptfix.inference.suggestion import SuggestionDocument

from ..inference.sides import fused, llama, lock, meta_llama, save, split
from ..recipes.layouts import MetaLlama
from .running import call, listing
from .test_imports import imported

RECIPE = """\
ckptfix: 1
description: "fused.pth to shapes:split.json"
# each line: by names, shapes; confidence 0.99
rules:
  - op: rearrange
    from: "h.{i}.attn.qkv.{p}"
    to: ["layers.{i}.attention.q_proj.{p}", "layers.{i}.attention.k_proj.{p}", "layers.{i}.attention.v_proj.{p}"]
    layout: "(q+k+v) ... -> q ..., k ..., v ..."
  - op: rename
    map:
      "wte.weight": "embeddings.tokens.weight"
      "h.{i}.ln_{j}.{p}": "layers.{i}.norm{j}.{p}"
      "h.{i}.attn.proj.{p}": "layers.{i}.attention.out_proj.{p}"
      "h.{i}.mlp.fc{j}.{p}": "layers.{i}.mlp.fc{j}.{p}"
      "ln_f.{p}": "norm.{p}"
"""
ROTARY = "rows of rotary heads come in two orders, and names and shapes do not tell which"
QUERIES = [f"layers.{i}.attention.w{part}.weight" for part in "qk" for i in range(2)]
QUERY_SOURCES = [f"model.layers.{i}.self_attn.{part}_proj.weight" for part in "qk" for i in range(2)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: both models as checkpoints, and the lockfiles of their other names."""
    monkeypatch.chdir(tmp_path)
    save(fused(), Path("fused.pth"))
    lock(split(), Path("split.json"))
    save(llama(), Path("llama.pth"))
    lock(meta_llama(), Path("meta.json"))
    return tmp_path


def test_a_whole_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suggest", "fused.pth", "split.json") == 0
    shown = capsys.readouterr()
    assert shown.out == RECIPE
    assert shown.err == "2 rules; 51 resolved\n"


def test_what_is_ambiguous_is_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suggest", "llama.pth", "meta.json") == 1
    shown = capsys.readouterr()
    recipe, _, doubts = shown.out.partition("# ambiguous")
    assert doubts.splitlines() == [
        f", {ROTARY} (4 keys):",
        *(f"#   {query} from {source}" for query, source in zip(QUERIES, QUERY_SOURCES, strict=True)),
    ]
    assert not any(word in recipe for word in ("wq", "wk", "q_proj", "k_proj"))
    assert shown.err == (
        f"ambiguous, {ROTARY}: {', '.join(QUERIES[:3])}, ... (4)\n"
        "1 rule; 17 resolved, 4 ambiguous\n"
        "note: what is ambiguous may be decided by --example, the same weights already converted, or by --parity, "
        "where the source's architecture can be built\n"
    )


def test_one_line_for_every_block(capsys: pytest.CaptureFixture[str]) -> None:
    save(llama(5), Path("deep.pth"))
    lock(meta_llama(5), Path("deep.json"))
    assert call("suggest", "deep.pth", "deep.json") == 1
    shown = capsys.readouterr()
    assert shown.out.partition("# ambiguous")[2].splitlines() == [
        f", {ROTARY} (10 keys):",
        "#   layers.*.attention.wq.weight (5 keys) from model.layers.*.self_attn.q_proj.weight",
        "#   layers.*.attention.wk.weight (5 keys) from model.layers.*.self_attn.k_proj.weight",
    ]
    assert f"ambiguous, {ROTARY}: layers.*.attention.wq.weight, layers.*.attention.wk.weight (10)\n" in shown.err


def test_what_is_unresolved_is_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    save({"merge.deep.weight": (6, 7)} | fused(), Path("odd.pth"))
    lock({"merge.deep.weight": (9, 11)} | split(), Path("want.json"))
    assert call("suggest", "odd.pth", "want.json") == 1
    shown = capsys.readouterr()
    shapes = "'merge.deep.weight' has the shape [6, 7], the target's is [9, 11]"
    reason = f"{shapes}; no resize is known: write the rule by hand, or `fill` it"
    assert shown.err == f"unresolved, {reason}: merge.deep.weight (1)\n2 rules; 51 resolved, 1 unresolved\n"
    assert f"# unresolved, {reason}" in shown.out
    assert shown.out.endswith(":\n#   merge.deep.weight\n")


def test_output_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suggest", "fused.pth", "split.json", "-o", "recipe.yaml") == 0
    assert capsys.readouterr().out == "2 rules; 51 resolved\nwrote recipe.yaml\n"
    assert Path("recipe.yaml").read_text() == RECIPE
    before = listing(Path())
    assert call("suggest", "llama.pth", "meta.json", "-o", "recipe.yaml") == 2
    assert capsys.readouterr().err.startswith("error: recipe.yaml: exists")
    assert listing(Path()) == before
    assert call("adapt", "fused.pth", "split.json", "-r", "recipe.yaml", "-o", "out.safetensors") == 0


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suggest", "llama.pth", "meta.json", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    kinds = {"schema_version": int, "recipe": dict} | dict.fromkeys(
        ("resolved", "filled", "ambiguous", "unresolved", "unused", "notes"), list
    )
    assert {key: type(value) for key, value in document.items()} == kinds
    assert document["schema_version"] == 2
    assert sorted(doubt["target"] for doubt in document["ambiguous"]) == sorted(QUERIES)
    resolved = {entry["target"]: entry for entry in document["resolved"]}
    assert resolved.keys() == meta_llama().keys() - set(QUERIES)
    assert resolved["layers.1.attention.wv.weight"] == {
        "target": "layers.1.attention.wv.weight",
        "sources": ["model.layers.1.self_attn.v_proj.weight"],
        "layout": None,
        "sizes": {},
        "resize": None,
        "evidence": ["names", "order", "shapes"],
        "confidence": 0.99,
        "why": "by names, order, shapes",
    }
    for doubt in document["ambiguous"]:
        assert set(doubt) == {"target", "candidates", "why", "beside"} and doubt["why"] == ROTARY
        assert all(candidate in llama() for candidate in doubt["candidates"])
    assert call("suggest", "fused.pth", "split.json", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert [entry["target"] for entry in whole["resolved"]] == list(split())
    key = next(entry for entry in whole["resolved"] if entry["target"] == "layers.2.attention.k_proj.bias")
    assert (key["sources"], key["layout"]) == (["h.2.attn.qkv.bias"], "(q+k+v) ... -> q ..., k ..., v ...")
    assert ckptfix.check("fused.pth", "split.json", whole["recipe"]).compatible


def test_the_schema_is_that_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("schema", "suggestion") == 0
    schema = json.loads(capsys.readouterr().out)
    for arguments in (("llama.pth", "meta.json"), ("fused.pth", "split.json"), ("llama.pth", "split.json")):
        call("suggest", *arguments, "--json")
        document = json.loads(capsys.readouterr().out)
        assert set(schema["required"]) == document.keys()
        TypeAdapter(SuggestionDocument).validate_python(document, strict=True)
        for field in ("resolved", "ambiguous", "unresolved"):
            entry = schema["$defs"][f"{field.capitalize()}Document"]
            assert all(found.keys() == set(entry["required"]) for found in document[field])


def test_a_recipe_by_example_repeats_every_byte(capsys: pytest.CaptureFixture[str]) -> None:
    turned = dict(zip(meta_llama(), torch.load("llama.pth").values(), strict=True))
    for key in QUERIES:
        turned[key] = turned[key].view(-1, 2, 2, 8).transpose(1, 2).reshape(-1, 8)
    save_file({name: tensor.contiguous() for name, tensor in turned.items()}, "example.safetensors")
    arguments = ["suggest", "llama.pth", "meta.json", "--example", "example.safetensors", "-o", "learned.yaml"]
    assert call(*arguments) == 0, capsys.readouterr()
    assert call("adapt", "llama.pth", "meta.json", "-r", "learned.yaml", "-o", "out.safetensors") == 0
    made, want = load_file("out.safetensors"), load_file("example.safetensors")
    assert {key: tensor.numpy().tobytes() for key, tensor in made.items()} == {
        key: tensor.numpy().tobytes() for key, tensor in want.items()
    }


def test_an_example_of_other_shapes_is_not_certain(capsys: pytest.CaptureFixture[str]) -> None:
    lock(split() | {"norm.weight": (16,)}, Path("wide.json"))
    assert call("adapt", "fused.pth", "split.json", "--suggest", "-o", "example.safetensors") == 0
    assert call("suggest", "fused.pth", "wide.json", "--example", "example.safetensors") == 1
    assert "the example has the shape [8], the target [16]" in capsys.readouterr().out


def test_an_example_in_half_precision_takes_one_cast(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("adapt", "fused.pth", "split.json", "--suggest", "-o", "whole.safetensors") == 0
    halves = {key: tensor.half() for key, tensor in load_file("whole.safetensors").items()}
    save_file(halves, "half.safetensors")
    assert call("suggest", "fused.pth", "split.json", "--example", "half.safetensors", "-o", "half.yaml") == 0
    assert '  - {op: cast, keys: "**", dtype: F16}\n' in Path("half.yaml").read_text()
    whole = load_file("whole.safetensors")
    mixed = {key: whole[key] if "norm" in key else tensor for key, tensor in halves.items()}
    save_file(mixed, "mixed.safetensors")
    assert call("suggest", "fused.pth", "split.json", "--example", "mixed.safetensors", "-o", "mixed.yaml") == 0
    assert Path("mixed.yaml").read_text().count("op: cast") == 1
    for name, want in (("half", halves), ("mixed", mixed)):
        capsys.readouterr()
        assert call("adapt", "fused.pth", "split.json", "-r", f"{name}.yaml", "-o", f"{name}2.safetensors") == 0
        made = load_file(f"{name}2.safetensors")
        assert {key: (t.dtype, t.numpy().tobytes()) for key, t in made.items()} == {
            key: (t.dtype, t.numpy().tobytes()) for key, t in want.items()
        }


def test_an_example_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suggest", "fused.pth", "split.json", "--example", "llama.pth") == 2
    assert capsys.readouterr().err == (
        "error: llama.pth: the example has none of the target's keys: 'model.embed_tokens.weight' is its first, "
        "'embeddings.tokens.weight' the target's (--example takes the weights as they are converted for TARGET)\n"
    )
    generator = torch.Generator().manual_seed(7)
    others = {key: torch.randn(shape, generator=generator) for key, shape in split().items()}
    save_file(others, "others.safetensors")
    assert call("suggest", "fused.pth", "split.json", "--example", "others.safetensors") == 2
    assert capsys.readouterr().err == (
        "error: others.safetensors: the example has no values of fused.pth (--example takes the same weights, "
        "converted)\n"
    )


def test_an_example_with_more_than_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("adapt", "fused.pth", "split.json", "--suggest", "-o", "whole.safetensors") == 0
    save_file(load_file("whole.safetensors") | {"extra": torch.load("fused.pth")["ln_f.bias"] + 1}, "more.safetensors")
    assert call("suggest", "fused.pth", "split.json", "--example", "more.safetensors") == 1
    assert "note: the target lacks 1 key that the example has: extra\n" in capsys.readouterr().err


def test_an_input_is_for_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suggest", "fused.pth", "split.json", "--input", "1,16") == 2
    message = "error: nothing is run that takes an input (--input is for --parity: give that as well)\n"
    assert capsys.readouterr().err == message


def test_the_chosen_state_dict_is_named_in_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load("fused.pth")
    torch.save({"net": state, "best": {key: tensor + 1 for key, tensor in state.items()}}, "two.pth")
    assert call("suggest", "two.pth#best", "split.json", "-o", "best.yaml") == 0, capsys.readouterr()
    assert "source: {select: best}" in Path("best.yaml").read_text()
    assert call("adapt", "two.pth", "split.json", "-r", "best.yaml", "-o", "best.safetensors") == 0
    assert torch.equal(load_file("best.safetensors")["norm.bias"], state["ln_f.bias"] + 1)


def test_adapt_infers_and_keeps_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("adapt", "fused.pth", "split.json", "--suggest", "-o", "out.safetensors") == 0
    assert capsys.readouterr().out.endswith("wrote out.safetensors.recipe.yaml (2 rules)\n")
    assert Path("out.safetensors.recipe.yaml").read_text() == RECIPE
    made, state = load_file("out.safetensors"), torch.load("fused.pth")
    parts = [made[f"layers.2.attention.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), state["h.2.attn.qkv.weight"])
    assert torch.equal(made["norm.bias"], state["ln_f.bias"])


def test_one_of_a_thing_is_not_many(capsys: pytest.CaptureFixture[str]) -> None:
    lock({f"net.{key}": shape for key, shape in fused().items()}, Path("net.json"))
    document = json.loads(Path("net.json").read_text())
    document["tensors"]["net.ln_f.bias"]["dtype"] = "F16"
    Path("net.json").write_text(json.dumps(document))
    assert call("adapt", "fused.pth", "net.json", "--suggest", "-o", "out.safetensors") == 0
    shown = capsys.readouterr().out
    assert "1 tensor is F32, the target's is F16: loading casts it\n" in shown
    assert shown.endswith("wrote out.safetensors.recipe.yaml (1 rule)\n")


def test_adapt_writes_nothing_where_something_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(Path())
    assert call("adapt", "llama.pth", "meta.json", "--suggest", "-o", "out.safetensors") == 1
    message = f"error: no certain recipe: 4 ambiguous and 0 unresolved keys, first '{QUERIES[0]}': {ROTARY} ("
    assert capsys.readouterr().err.startswith(message)
    assert listing(Path()) == before


def test_adapt_takes_one_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text(RECIPE)
    before = listing(Path())
    assert call("adapt", "fused.pth", "split.json", "--suggest", "-r", "r.yaml", "-o", "out.safetensors") == 2
    assert capsys.readouterr().err == "error: --suggest infers the recipe that -r gives (leave one of them out)\n"
    assert listing(Path()) == before


@pytest.mark.parametrize("name", ["out.safetensors", "out.safetensors.recipe.yaml"])
def test_adapt_replaces_neither_file_unasked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_text("mine")
    before = listing(Path())
    arguments = ["adapt", "fused.pth", "split.json", "--suggest", "-o", "out.safetensors"]
    assert call(*arguments) == 2
    assert capsys.readouterr().err == f"error: {name}: exists (--force replaces it)\n"
    assert listing(Path()) == before
    assert call(*arguments, "--force") == 0
    assert Path("out.safetensors.recipe.yaml").read_text() == RECIPE


def block(**parts: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(parts)


def make_split() -> nn.Module:
    """Build the transformer with a tensor each, as `split` lists it."""
    layers = [
        block(
            norm1=nn.LayerNorm(8),
            attention=block(**{f"{part}_proj": nn.Linear(8, 8) for part in ("q", "k", "v", "out")}),
            norm2=nn.LayerNorm(8),
            mlp=block(fc1=nn.Linear(8, 32), fc2=nn.Linear(32, 8)),
        )
        for _ in range(3)
    ]
    return block(embeddings=block(tokens=nn.Embedding(50, 8)), layers=nn.ModuleList(layers), norm=nn.LayerNorm(8))


def test_load_into_a_live_module() -> None:
    module = make_split()
    report = ckptfix.load_into(module, "fused.pth", recipe="auto", recipe_out="used.yaml")
    assert report.compatible
    state, loaded = torch.load("fused.pth"), module.state_dict()
    assert torch.equal(loaded["embeddings.tokens.weight"], state["wte.weight"])
    assert torch.equal(loaded["layers.1.attention.k_proj.bias"], state["h.1.attn.qkv.bias"][8:16])
    assert Path("used.yaml").read_text() == RECIPE.replace(
        '"fused.pth to shapes:split.json"', "fused.pth to ModuleDict"
    )
    assert ckptfix.check("fused.pth", "split.json", "used.yaml").compatible


def test_load_into_replaces_no_recipe_unasked() -> None:
    Path("used.yaml").write_text("mine")
    module = make_split()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(OutputExists, match=r"^used.yaml: exists \(existing='replace' replaces it\)$"):
        ckptfix.load_into(module, "fused.pth", recipe="auto", recipe_out="used.yaml")
    assert Path("used.yaml").read_text() == "mine"
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())
    ckptfix.load_into(module, "fused.pth", recipe="auto", recipe_out="used.yaml", existing="replace")
    assert Path("used.yaml").read_text().startswith("ckptfix: 1")


def test_load_into_writes_only_a_recipe_that_it_infers() -> None:
    with pytest.raises(InvalidCall, match=r"^recipe_out is for a recipe that is inferred \(give recipe='auto', "):
        ckptfix.load_into(make_split(), "fused.pth", RECIPE, recipe_out="used.yaml")
    assert not Path("used.yaml").exists()


def test_load_into_refuses_what_is_not_certain() -> None:
    module = MetaLlama(50, 8, 2, 2, 1, 16)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(Unresolved, match=f"^no certain recipe: 4 ambiguous .*: {ROTARY}"):
        ckptfix.load_into(module, "llama.pth", recipe="auto", recipe_out="used.yaml")
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())
    assert not Path("used.yaml").exists()


def test_what_it_imports(folder: Path) -> None:
    heavy = {"torch", "safetensors", "huggingface_hub"}
    assert imported("suggest", "fused.pth", "split.json", cwd=folder) & (heavy | {"numpy"}) == set()
    call("adapt", "fused.pth", "split.json", "--suggest", "-o", "out.safetensors")
    arguments = ["suggest", "fused.pth", "split.json", "--example", "out.safetensors"]
    assert imported(*arguments, cwd=folder) & heavy == set()
