"""Links become recipes that a person would write."""

from __future__ import annotations

from itertools import product
from typing import Any

from ckptfix.inference.link import Link, Term
from tests.inference.cases import Case, assert_does_as_told, vit


def test_a_vision_transformer_of_timm_for_transformers() -> None:
    case = vit()
    case.module("head", "classifier")
    assert (
        case.written("timm ViT to transformers").text
        == """\
ckptfix: 1
description: timm ViT to transformers
# each line that says nothing else: same place and shape; confidence 0.95 or more
rules:
  # one tensor three times as high
  - op: rearrange
    from: "blocks.{i}.attn.qkv.{p}"
    to:
      - "vit.layers.{i}.attention.q_proj.{p}"
      - "vit.layers.{i}.attention.k_proj.{p}"
      - "vit.layers.{i}.attention.v_proj.{p}"
    layout: "(q+k+v) ... -> q ..., k ..., v ..."
  - op: rename
    map:
      "cls_token": "vit.embeddings.cls_token"
      "pos_embed": "vit.embeddings.position_embeddings"
      "patch_embed.proj.{p}": "vit.embeddings.patch_embeddings.projection.{p}"

      "blocks.{i}.norm1.{p}": "vit.layers.{i}.layernorm_before.{p}"
      "blocks.{i}.attn.proj.{p}": "vit.layers.{i}.attention.o_proj.{p}"
      "blocks.{i}.norm2.{p}": "vit.layers.{i}.layernorm_after.{p}"
      "blocks.{i}.mlp.fc{j}.{p}": "vit.layers.{i}.mlp.fc{j}.{p}"

      "norm.{p}": "vit.layernorm.{p}"
      "head.{p}": "classifier.{p}"
"""
    )
    assert_does_as_told(case, case.written())


def test_a_new_head_behind_a_wrapper() -> None:
    case = Case(source={"strip": ["module."]})
    for i in range(3):
        case.module(f"module.blocks.{i}.fc", f"blocks.{i}.fc")
    for parameter in ("weight", "bias"):
        case.drop(f"module.head.{parameter}")
        case.fill(f"head.{parameter}")
    assert (
        case.written().text
        == """\
ckptfix: 1
description: a to b
source: {strip: ["module."]}
rules:
  # nothing of the target is made of these
  - {op: drop, keys: "head.*"}
  # the checkpoint has nothing for these
  - {op: fill, keys: "head.*", value: target}
"""
    )


BLOCKS = [1, 2, 3, 4, 3, 3, 1]
"""How many blocks each stage of MobileNetV2 has."""


def test_a_flat_mobilenet_by_stages() -> None:
    case = Case()
    norm = ("weight", "bias", "running_mean", "running_var")
    case.rename("features.0.0.weight", "conv_stem.weight")
    case.module("features.0.1", "bn1", norm)
    places = [(stage, block) for stage, blocks in enumerate(BLOCKS) for block in range(blocks)]
    for i, (stage, block) in enumerate(places[1:], 2):
        case.rename(f"features.{i}.expand.weight", f"blocks.{stage}.{block}.conv_pw.weight")
        case.module(f"features.{i}.norm", f"blocks.{stage}.{block}.bn1", norm)
    case.module("classifier.1", "classifier")
    assert (
        case.written().text
        == """\
ckptfix: 1
description: a to b
vars:
  stage: [0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6]
  block: [0, 0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0]
# each line: same place and shape; confidence 1.00
rules:
  - op: rename
    map:
      "features.0.0.weight": "conv_stem.weight"
      "features.0.1.{p}": "bn1.{p}"
      "features.{i}.expand.weight": "blocks.{stage[i]}.{block[i]}.conv_pw.weight"
      "features.{i}.norm.{p}": "blocks.{stage[i]}.{block[i]}.bn1.{p}"
      "classifier.1.{p}": "classifier.{p}"
"""
    )
    assert_does_as_told(case, case.written())


def test_stages_for_a_flat_mobilenet() -> None:
    case = Case()
    places = [(stage, block) for stage, blocks in enumerate(BLOCKS) for block in range(blocks)]
    for i, (stage, block) in enumerate(places, 1):
        case.rename(f"blocks.{stage}.{block}.conv.weight", f"features.{i}.conv.0.weight")
    assert case.written().values["vars"] == {"first": [1, 2, 4, 7, 11, 14, 17]}
    assert case.written().values["rules"] == [
        {"op": "rename", "map": {"blocks.{i}.{j}.conv.weight": "features.{first[i]+j}.conv.0.weight"}}
    ]


def test_experts_are_stacked_and_gate_and_up_fused() -> None:
    case = Case()
    for i in range(4):
        case.rename(f"layers.{i}.router.weight", f"model.layers.{i}.mlp.gate.weight")
        keys = {part: tuple(f"layers.{i}.{part}.{e}" for e in range(8)) for part in ("w1", "w2", "w3")}
        case.have |= {key: (3, 2) for part in keys.values() for key in part}
        up, down = f"model.layers.{i}.mlp.experts.gate_up_proj", f"model.layers.{i}.mlp.experts.down_proj"
        case.want |= {up: (8, 6, 2), down: (8, 3, 2)}
        fused = (Term(keys["w1"], "e"), Term(keys["w3"], "e"))
        layout = "e g ..., e u ... -> e (g+u) ..."
        case.links.append(Link(fused, (Term.of(up),), layout, confidence=0.9, why="all shapes"))
        case.links.append(Link((Term(keys["w2"], "e"),), (Term.of(down),), "e c h -> e c h", why="all shapes"))
    assert (
        case.written().text
        == """\
ckptfix: 1
description: a to b
# each line that says nothing else: all shapes; confidence 0.90 or more
rules:
  - op: rearrange
    from: ["layers.{i}.w1.{e}", "layers.{i}.w3.{e}"]
    to: "model.layers.{i}.mlp.experts.gate_up_proj"
    layout: "e g ..., e u ... -> e (g+u) ..."
  - {op: rearrange, from: "layers.{i}.w2.{e}", to: "model.layers.{i}.mlp.experts.down_proj", layout: "e c h -> e c h"}
  # same place and shape
  - {op: rename, map: {"layers.{i}.router.weight": "model.layers.{i}.mlp.gate.weight"}}
"""
    )
    assert_does_as_told(case, case.written())


def test_a_prefix_is_added() -> None:
    case = Case()
    for i in range(3):
        case.module(f"layer{i}.conv", f"backbone.layer{i}.conv")
    case.module("stem", "backbone.stem")
    assert case.written().values["rules"] == [{"op": "rename", "map": {"{k:**}": "backbone.{k}"}}]


def test_linear_layers_of_gpt2_are_transposed_where_they_lie() -> None:
    case = Case()
    for i in range(4):
        case.module(f"h.{i}.ln_1", f"transformer.h.{i}.ln_1")
        for name in ("attn.c_attn", "mlp.c_fc"):
            case.rename(f"h.{i}.{name}.bias", f"transformer.h.{i}.{name}.bias")
            case.have[f"h.{i}.{name}.weight"] = (2, 3)
            case.want[f"transformer.h.{i}.{name}.weight"] = (3, 2)
            terms = (Term.of(f"h.{i}.{name}.weight"),), (Term.of(f"transformer.h.{i}.{name}.weight"),)
            case.links.append(Link(*terms, "o i -> i o", confidence=0.8, why="shapes the other way round"))
    assert (
        case.written().text
        == """\
ckptfix: 1
description: a to b
# each line that says nothing else: same place and shape; shapes the other way round; confidence 0.80
rules:
  - {op: rename, map: {"{k:**}": "transformer.{k}"}}
  # shapes the other way round
  - {op: rearrange, keys: ["**.c_attn.weight", "**.c_fc.weight"], layout: "o i -> i o"}
"""
    )
    assert_does_as_told(case, case.written())


def test_words_are_looked_up_where_that_is_shorter() -> None:
    case = Case()
    for i, (old, new) in product(range(2), {"query": "q", "key": "k", "value": "v", "out": "o"}.items()):
        for side, attention in (("text", "attn"), ("text", "cross"), ("image", "pool")):
            source = f"{side}_model.encoder.layers.{i}.{attention}.{old}"
            case.module(source, f"{side}.blocks.{i}.{attention}.{new}_projection")
    written = case.written()
    assert written.values["vars"] == {"part": {"query": "q", "key": "k", "value": "v", "out": "o"}}
    assert written.values["rules"] == [
        {
            "op": "rename",
            "map": {"{m}_model.encoder.layers.{k:**}.{l}.{p}": "{m}.blocks.{k}.{part[l]}_projection.{p}"},
        }
    ]
    assert_does_as_told(case, written)


def test_branches_that_change_alike_move_first() -> None:
    case = Case()
    for side, new in (("visual.transformer", "vision_model.encoder"), ("transformer", "text_model.encoder")):
        for i in range(12):
            for old_name, new_name in {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1"}.items():
                case.module(f"{side}.resblocks.{i}.{old_name}", f"{new}.layers.{i}.{new_name}")
            targets = [f"{new}.layers.{i}.self_attn.{part}_proj.weight" for part in "qkv"]
            case.split(f"{side}.resblocks.{i}.attn.in_proj_weight", targets, (2, 2))
    assert (
        case.written().text
        == """\
ckptfix: 1
description: a to b
# each line that says nothing else: same place and shape; one tensor three times as high; confidence 0.95 or more
rules:
  - op: rename
    map:
      "visual.transformer.resblocks.{k:**}": "vision_model.encoder.layers.{k}"
      "transformer.resblocks.{k:**}": "text_model.encoder.layers.{k}"
  # one tensor three times as high
  - op: rearrange
    from: "{b:**}.attn.in_proj_weight"
    to: ["{b}.self_attn.q_proj.weight", "{b}.self_attn.k_proj.weight", "{b}.self_attn.v_proj.weight"]
    layout: "(q+k+v) ... -> q ..., k ..., v ..."
  # same place and shape
  - op: rename
    map:
      "{b:**}.ln_{i}.{p}": "{b}.layer_norm{i}.{p}"
      "{b:**}.c_fc.{p}": "{b}.fc1.{p}"
"""
    )
    assert_does_as_told(case, case.written())


def test_layers_that_are_cut_are_dropped_by_one_pattern() -> None:
    case = Case()
    for i, name in product(range(6), ("fc.weight", "fc.bias", "norm.weight")):
        key = f"blocks.{i}.{name}"
        if i < 3:
            case.rename(key, key)
        else:
            case.drop(key)
    assert _rules(case) == [{"op": "drop", "keys": "blocks.{i:3|4|5}.**"}]
    assert_does_as_told(case, case.written())


def test_two_norms_swap_names_in_one_rule() -> None:
    case = Case()
    for i in range(3):
        case.module(f"blocks.{i}.norm1", f"blocks.{i}.norm2")
        case.module(f"blocks.{i}.norm2", f"blocks.{i}.norm1")
    written = case.written()
    assert written.rules == 1
    assert_does_as_told(case, written)


def test_a_tied_head_is_copied_from_what_is_filled_before() -> None:
    case = Case(copied={"head.weight": "embed.weight"})
    case.module("a", "b")
    case.fill("embed.weight")
    case.want["head.weight"] = (3,)
    assert [rule["op"] for rule in _rules(case)] == ["rename", "fill", "copy"]
    assert_does_as_told(case, case.written())


def _rules(case: Case) -> list[dict[str, Any]]:
    rules = case.written().values["rules"]
    assert isinstance(rules, list)
    return rules


def test_a_position_table_is_renamed_and_resized() -> None:
    case = Case()
    case.have["pos"], case.want["embeddings.pos"] = (1, 5, 2), (1, 10, 2)
    fields: dict[str, object] = {"layout": "b (p + (h w)) c", "axes": ["h", "w"], "mode": "bicubic", "sizes": {"p": 1}}
    case.links.append(Link((Term.of("pos"),), (Term.of("embeddings.pos"),), resize=fields))
    written = case.written()
    assert _rules(case) == [
        {"op": "rename", "map": {"pos": "embeddings.pos"}},
        {"op": "resize", "keys": "embeddings.pos", **fields},
    ]
    assert_does_as_told(case, written)


def test_links_of_another_confidence_get_a_rule_of_their_own() -> None:
    case = Case()
    case.module("a", "stem")
    for parameter in ("weight", "bias"):
        case.rename(f"b.{parameter}", f"head.{parameter}", confidence=0.5, why="the only one left")
    assert case.written().text.endswith("""\
# each line that says nothing else: same place and shape; confidence 1.00
rules:
  - {op: rename, map: {"a.{p}": "stem.{p}"}}
  # the only one left; confidence 0.50
  - {op: rename, map: {"b.{p}": "head.{p}"}}
""")
