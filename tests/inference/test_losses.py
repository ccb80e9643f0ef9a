"""What a recipe loses or makes up is said, once and with its numbers, though every key of the target is settled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
from torch import nn
from torchvision.models import resnet18, resnet34
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import Answer, settle
from ckptfix.targets.base import manifest_of

Build = Callable[[], nn.Module]


def answer(source: nn.Module, target: nn.Module) -> Answer:
    """Settle two modules, the target with the classes of its modules."""
    return settle(manifest_of(source), manifest_of(target), Allowed())


def vit(**options: object) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **options)


def gpt2(**options: int) -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 100, "n_positions": 64, "bos_token_id": 1}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "eos_token_id": 1, **options}))


def convolutions(norm: Callable[[int], nn.Module]) -> nn.Module:
    layers = (nn.ModuleDict({"conv": nn.Conv2d(8, 8, 3, bias=False), "norm": norm(8)}) for _ in range(3))
    return nn.ModuleDict({"stem": nn.Conv2d(3, 8, 3), "layers": nn.ModuleList(layers)})


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def recurrent(layers: int, **options: bool) -> nn.Module:
    return nn.ModuleDict({"rnn": nn.LSTM(16, 16, layers, **options), "out": nn.Linear(16, 7)})


CASES: dict[str, tuple[Build, Build, list[str]]] = {
    "a grown vocabulary": (
        gpt2,
        lambda: gpt2(vocab_size=128),
        ["'transformer.wte.weight', 'lm_head.weight': 100 rows become 128: each of the 28 new ones is the mean of all"],
    ),
    "a cut table": (
        gpt2,
        lambda: gpt2(n_positions=32),
        ["'transformer.wpe.weight': the first 32 of 64 rows are taken, the other 32 are lost"],
    ),
    "grey images": (
        resnet18,
        lambda: timm.create_model("resnet18", in_chans=1),
        ["'conv1.weight': 3 input channels become 1, their sum"],
    ),
    "a fourth channel": (
        vit,
        lambda: vit(in_chans=4),
        ["'patch_embed.proj.weight': 3 input channels become 4: taken in turn, and scaled by 3/4"],
    ),
    "larger images": (vit, lambda: vit(img_size=384), ["'pos_embed': resampled from 197 to 577 (bicubic)"]),
    "half of the blocks": (
        vit,
        lambda: vit(depth=6),
        ["blocks are left out: numbers 6 to 11 of the 12 in 'blocks'"],
    ),
    "blocks of several stages": (
        resnet34,
        resnet18,
        [
            "blocks are left out: number 2 of the 3 in 'layer1', 'layer4'; "
            "numbers 2, 3 of the 4 in 'layer2'; numbers 2 to 5 of the 6 in 'layer3'"
        ],
    ),
    "layers of a recurrent network": (
        lambda: recurrent(3),
        lambda: recurrent(2),
        ["blocks are left out: number 2 of the 3 in 'rnn'"],
    ),
    "biases of a recurrent network": (
        lambda: recurrent(1),
        lambda: recurrent(1, bias=False),
        [
            "2 biases are left out ('rnn.bias_ih_l0', 'rnn.bias_hh_l0'): the target's LSTM has no place for them",
        ],
    ),
    "biases of linear layers": (
        vit,
        lambda: vit(qkv_bias=False),
        ["12 biases are left out ('blocks.*.attn.qkv.bias'): the target's Linear has no place for them"],
    ),
    "biases and blocks": (
        vit,
        lambda: vit(qkv_bias=False, depth=2),
        [
            "2 biases are left out ('blocks.*.attn.qkv.bias'): the target's Linear has no place for them",
            "blocks are left out: numbers 2 to 11 of the 12 in 'blocks'",
        ],
    ),
    "biases of norms": (
        vit,
        lambda: vit(norm_layer=timm.layers.RmsNorm),
        [
            "25 biases are left out ('blocks.*.norm1.bias', 'blocks.*.norm2.bias', 'norm.bias'): "
            "the target's RmsNorm has no place for them"
        ],
    ),
    "running statistics": (
        lambda: convolutions(nn.BatchNorm2d),
        lambda: convolutions(group_norm),
        ["the running mean and variance of 3 norms are left out ('layers.*.norm'): the target's GroupNorm has none"],
    ),
    "fresh statistics": (
        lambda: convolutions(group_norm),
        lambda: convolutions(nn.BatchNorm2d),
        ["3 norms start with a fresh running mean and variance ('layers.*.norm')"],
    ),
    "parts of blocks": (
        lambda: vit(init_values=1e-5),
        vit,
        ["'blocks.*.ls1.gamma', 'blocks.*.ls2.gamma': left out of blocks that are used (24 tensors)"],
    ),
    "nothing where the classes differ": (resnet18, lambda: resnet18(num_classes=10), []),
    "nothing where a model is as it was": (vit, vit, []),
}


@pytest.mark.parametrize(("source", "target", "notes"), CASES.values(), ids=CASES.keys())
def test_what_is_lost_or_made_up_is_said(source: Build, target: Build, notes: list[str]) -> None:
    found = answer(source(), target())
    assert not found.ambiguous and not found.unresolved
    assert found.notes == notes


def test_a_tower_that_is_not_used_is_said() -> None:
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "hidden_size": 24, "intermediate_size": 48, "vocab_size": 99, "max_position_embeddings": 20}
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8})
    both = CLIPModel(config)
    found = answer(both, CLIPVisionModel(config.vision_config))
    [note] = found.notes
    assert note == f"'text_model' is not used: {len(both.text_model.state_dict())} tensors"


def test_what_is_inside_a_block_that_is_left_out_is_not_said_again() -> None:
    def mixture(blocks: int) -> nn.Module:
        layers = (nn.ModuleDict({"norm": nn.LayerNorm(8), "experts": expert_list()}) for _ in range(blocks))
        return nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def expert_list() -> nn.Module:
        return nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(4))

    found = answer(mixture(4), mixture(3))
    assert found.notes == ["blocks are left out: number 3 of the 4 in 'layers'"]


def test_what_is_open_is_not_said_to_be_lost() -> None:
    """The lengths of weights are to be folded in, not left out."""
    normed = nn.Sequential(*(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)) for _ in range(3)))
    found = answer(normed, nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))))
    assert found.ambiguous and not found.notes
