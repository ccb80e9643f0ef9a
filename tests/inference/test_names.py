"""Names as libraries write them, taken apart."""

from __future__ import annotations

import pytest

from ckptfix.inference.lexicon import concept, likeness
from ckptfix.inference.names import read_name, similarity
from ckptfix.inference.reading import read_keys
from ckptfix.inference.rotary import source_order
from ckptfix.inference.slots import find_role


@pytest.mark.parametrize(
    ("key", "words", "numbers", "kind", "parent"),
    [
        ("conv2_block1_1_bn/gamma", ("conv", "block", "bn"), (2, 1, 1), "weight", "conv2_block1_1_bn"),
        ("bn1.running_mean", ("bn",), (1,), "mean", "bn1"),
        ("bn/moving_variance", ("bn",), (), "variance", "bn"),
        ("bn1.num_batches_tracked", ("bn",), (1,), "count", "bn1"),
        ("self_attn.in_proj_weight", ("self", "attn", "inproj"), (), "weight", "self_attn.in_proj"),
        ("selfAttention.LayerNorm.beta", ("self", "attention", "layernorm"), (), "bias", "selfAttention.LayerNorm"),
        ("layerScale.lambda1", ("layerscale", "lambda"), (1,), "", "layerScale"),
        ("cls_token", ("cls", "token"), (), "", ""),
        ("attention.wq.weight", ("attention", "wq"), (), "weight", "attention.wq"),
        ("weight", (), (), "weight", ""),
    ],
)
def test_read_name(key: str, words: tuple[str, ...], numbers: tuple[int, ...], kind: str, parent: str) -> None:
    name = read_name(key)
    assert (name.words, name.numbers, name.kind, name.parent) == (words, numbers, kind, parent)


def test_generic_words_tell_nothing() -> None:
    assert read_name("model.layers.3.mlp.gate_proj.weight").telling == ("mlp", "gate", "proj")


@pytest.mark.parametrize(
    ("keys", "reads"),
    [
        (["a/conv2_1_bn/conv2_1_bn/gamma:0"], ["a.conv2.1.bn.gamma"]),
        (
            ["res2_0_branch2a_w", "res2_0_branch2b_bn_running_mean"],
            ["res2.0.branch2.0.w", "res2.0.branch2.1.bn.running_mean"],
        ),
        (["block1a_bn/gamma", "block2b_bn/gamma"], ["block1.0.bn.gamma", "block2.1.bn.gamma"]),
        (["blocks.0.0.w"], ["blocks.0.0.w"]),
        (["layer_a.w", "layer_b.w", "layer_c.w"], ["layer_0.w", "layer_1.w", "layer_2.w"]),
        (["layer_a.w", "layer_b.w"], ["layer_a.w", "layer_b.w"]),
        (["layer_x.w", "layer_y.w", "layer_z.w"], ["layer_x.w", "layer_y.w", "layer_z.w"]),
        (["a.w", "a/w"], ["a.w", "a/w"]),
    ],
    ids=[
        "keras",
        "underscores",
        "numbers and letters",
        "numbers said twice",
        "letters",
        "two letters",
        "no alphabet",
        "kept apart",
    ],
)
def test_read_keys(keys: list[str], reads: list[str]) -> None:
    assert read_keys(keys) == dict(zip(keys, reads, strict=True))


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("self_attn.q_proj.weight", "q"),
        ("attention.wk.weight", "k"),
        ("attn.qkv.weight", "qkv"),
        ("self_attn.in_proj_weight", "qkv"),
        ("attn.c_attn.weight", "qkv"),
        ("encoder_attn.v_proj.weight", "cross v"),
        ("self_attn.out_proj.weight", "o"),
        ("mlp.gate_proj.weight", "gate"),
        ("mlp.gate_up_proj.weight", "gate_up"),
        ("post_attention_layernorm.weight", "norm after attention"),
        ("input_layernorm.weight", "norm first"),
        ("q_norm.weight", "norm of query"),
        ("mlp.fc1.weight", ""),
    ],
)
def test_find_role(key: str, role: str) -> None:
    assert find_role(read_name(key)) == role


def test_likeness_is_graded_and_mutual() -> None:
    graded = [("norm", "norm"), ("ln", "norm"), ("inter", "intermediate"), ("out", "classifier"), ("gate", "norm")]
    assert [likeness(*pair) for pair in graded] == [1.0, 0.95, 0.8, 0.6, 0.0]
    assert [likeness(other, one) for one, other in graded] == [1.0, 0.95, 0.8, 0.6, 0.0]
    assert concept("never_heard_of") == "never_heard_of"


def test_similarity_counts_each_word_once() -> None:
    assert similarity(("attn", "out"), ("attention", "output"), {}) == pytest.approx(0.95)
    assert similarity(("norm", "norm"), ("norm",), {}) == pytest.approx(2**-0.5)
    assert similarity((), ("norm",), {}) == 0.0
    rare = {"norm": 0.1, "mlp": 1.0, "attn": 1.0}
    assert similarity(("norm", "mlp"), ("norm", "attn"), rare) < 0.1


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        (["layers.0.attention.wq.weight", "layers.0.attention.wk.weight"], "neighbours"),
        (["model.layers.0.self_attn.q_proj.weight"], "halves"),
        (["layers.0.attn.q_proj.weight"], None),
    ],
)
def test_order_of_rotary_rows(keys: list[str], order: str | None) -> None:
    assert source_order(keys) == order
