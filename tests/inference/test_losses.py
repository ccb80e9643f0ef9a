"""What a recipe loses or makes up is said, once and with its numbers, though every key of the target is settled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18, resnet34
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from ckptfix.formats import open_checkpoint
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import Answer, settle
from ckptfix.inference.suggestion import suggest_for, suggest_recipe
from ckptfix.report.text import show_suggestion
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


def perceptron(*between: Callable[[int], nn.Module] | None) -> nn.Sequential:
    """Build linear layers with a norm or none before and behind each activation."""
    before, behind = (*between, None)[:2]
    layers: list[nn.Module] = []
    for have, want in ((16, 32), (32, 24)):
        norms = [[kind(want)] if kind else [] for kind in (before, behind)]
        layers += [nn.Linear(have, want), *norms[0], nn.ReLU(), *norms[1]]
    return nn.Sequential(*layers, nn.Linear(24, 4))


def unet(depth: int) -> nn.Module:
    """Build a U-Net whose decoder counts from the deepest level on."""

    def twice(have: int, want: int) -> nn.Module:
        parts = [nn.Conv2d(have, want, 3), nn.BatchNorm2d(want), nn.ReLU()]
        return nn.Sequential(*parts, nn.Conv2d(want, want, 3), nn.BatchNorm2d(want))

    widths = [8 * 2**level for level in range(depth + 1)]
    ups: list[nn.Module] = []
    for narrow, wide in reversed(list(pairwise(widths))):
        ups += [nn.ConvTranspose2d(wide, narrow, 2), twice(wide, narrow)]
    downs = [twice(narrow, wide) for narrow, wide in pairwise(widths)]
    parts = {"downs": nn.ModuleList(downs), "ups": nn.ModuleList(ups), "outc": nn.Conv2d(8, 2, 1)}
    return nn.ModuleDict({"inc": twice(3, 8), **parts})


def without(module: nn.Module, name: str) -> nn.Module:
    """Take a parameter away."""
    setattr(module, name, None)
    return module


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
    "one row more": (
        gpt2,
        lambda: gpt2(vocab_size=101),
        ["'transformer.wte.weight', 'lm_head.weight': 100 rows become 101: the new one is the mean of all"],
    ),
    "one row less": (
        gpt2,
        lambda: gpt2(vocab_size=99),
        ["'transformer.wte.weight', 'lm_head.weight': the first 99 of 100 rows are taken, the other is lost"],
    ),
    "norms after linear layers": (
        lambda: perceptron(nn.LayerNorm),
        lambda: perceptron(None),
        ["2 norms are left out ('1', '4'): without them the target computes something else"],
    ),
    "batch norms behind activations": (
        lambda: perceptron(None, nn.BatchNorm1d),
        lambda: perceptron(None, None),
        [
            "2 norms are left out ('2', '5'): without them the target computes something else; "
            "a batch norm right after its layer can be folded in (op `call`, fn fold_batch_norm)"
        ],
    ),
    "the levels of a U-Net": (
        lambda: unet(4),
        lambda: unet(3),
        ["'downs.3', 'ups.0', 'ups.1': left out, nothing of the target is made of them (26 trained tensors)"],
    ),
    "more levels than are named": (
        lambda: unet(5),
        lambda: unet(3),
        [
            "'downs.3', 'downs.4', 'ups.0' and 3 more: left out, nothing of the target is made of them "
            "(52 trained tensors)"
        ],
    ),
    "the table of positions": (
        vit,
        lambda: without(vit(), "pos_embed"),
        ["'pos_embed': left out, nothing of the target is made of it (1 trained tensor)"],
    ),
    "another stem": (
        lambda: timm.create_model("resnet18"),
        lambda: timm.create_model("resnet18d"),
        ["'conv1': left out, nothing of the target is made of it (1 trained tensor)"],
    ),
    "a head that the target lacks": (
        vit,
        lambda: vit(num_classes=0),
        ["'head': left out, nothing of the target is made of it (2 trained tensors)"],
    ),
    "what is new in every block": (
        lambda: timm.create_model("resnet18"),
        lambda: timm.create_model("seresnet18"),
        [
            "'layer1.*.se', 'layer2.*.se', 'layer3.*.se' and 1 more: "
            "new in blocks of which the rest has a source (32 tensors)"
        ],
    ),
    "biases that are new": (
        lambda: vit(qkv_bias=False),
        vit,
        ["'blocks.*.attn.qkv.bias': new in blocks of which the rest has a source (12 tensors)"],
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
    assert found.notes == [
        f"'text_model' is not used: {len(both.text_model.state_dict())} tensors",
        "'logit_scale', 'visual_projection', 'text_projection': left out, nothing of the target is made of them "
        "(3 trained tensors)",
    ]


def test_what_is_inside_a_block_that_is_left_out_is_not_said_again() -> None:
    def mixture(blocks: int) -> nn.Module:
        layers = (nn.ModuleDict({"norm": nn.LayerNorm(8), "experts": expert_list()}) for _ in range(blocks))
        return nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def expert_list() -> nn.Module:
        return nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(4))

    found = answer(mixture(4), mixture(3))
    assert found.notes == ["blocks are left out: number 3 of the 4 in 'layers'"]


def test_a_table_of_token_types_is_not_lost_unsaid() -> None:
    def bert() -> BertModel:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        return BertModel(BertConfig(vocab_size=99, max_position_embeddings=20, **sizes))

    plain = bert()
    del plain.embeddings.token_type_embeddings
    assert answer(bert(), plain).notes == [
        "'embeddings.token_type_embeddings': left out, nothing of the target is made of it (1 trained tensor)"
    ]


def test_a_head_that_is_tied_to_a_table_in_use_is_not_lost(tmp_path: Path) -> None:
    """A `.pth` tells that both are one tensor; there is a note where both are stored."""
    model = gpt2()
    bare = manifest_of(model.transformer)
    torch.save(model.state_dict(), tmp_path / "tied.pth")
    apart = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(apart, tmp_path / "apart.pth")
    found = [suggest_for(open_checkpoint(tmp_path / f"{name}.pth"), bare, name) for name in ("tied", "apart")]
    assert all(suggestion.is_complete for suggestion in found)
    note = "'lm_head': left out, nothing of the target is made of it (1 trained tensor)"
    assert [suggestion.notes for suggestion in found] == [(), (note,)]


def test_the_norm_of_a_tower_that_is_dropped_is_of_the_rest() -> None:
    def towers(*names: str) -> nn.Module:
        parts = {f"{name}_{part}": layer for name in names for part, layer in pair().items()}
        return nn.ModuleDict(parts)

    def pair() -> dict[str, nn.Module]:
        return {"in": nn.Linear(8, 16), "out": nn.Linear(16, 8), "norm": nn.LayerNorm(8)}

    assert answer(towers("image", "text"), towers("image")).notes == [
        "'text_in', 'text_out', 'text_norm': left out, nothing of the target is made of them (6 trained tensors)"
    ]


def test_no_note_on_what_is_computed() -> None:
    """Masks, indices and counters are no loss."""
    plain = nn.ModuleDict({"fc": nn.Linear(4, 4)})
    computing = nn.ModuleDict({"fc": nn.Linear(4, 4)})
    for name, value in {"attn_mask": torch.ones(4, 4), "inv_freq": torch.ones(4), "seen": torch.tensor(3)}.items():
        computing.register_buffer(name, value)
    computing.add_module("causal", nn.Module())
    computing.causal.register_buffer("bias", torch.ones(1, 1, 4, 4))
    assert answer(computing, plain).notes == []


@pytest.mark.parametrize(
    ("source", "target", "account"),
    [
        ("resnet18", "resnet18", "2 rules; 120 resolved, 2 filled"),
        ("resnet18", "seresnet18", "2 rules; 120 resolved, 34 filled (less than 1% of the elements)"),
        ("resnet50", "seresnet50", "2 rules; 318 resolved, 66 filled (10% of the elements)"),
    ],
)
def test_the_share_of_what_is_new_is_told(source: str, target: str, account: str) -> None:
    """Not of a head alone: that is one layer."""
    have, want = timm.create_model(source), timm.create_model(target, num_classes=7)
    found = suggest_recipe(manifest_of(have), manifest_of(want), source)
    assert list(show_suggestion(found)) == [account]


def test_what_is_open_is_not_said_to_be_lost() -> None:
    """The lengths of weights are to be folded in, not left out."""
    normed = nn.Sequential(*(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)) for _ in range(3)))
    found = answer(normed, nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))))
    assert found.ambiguous and not found.notes
