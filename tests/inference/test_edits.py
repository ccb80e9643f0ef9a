"""Edits that people make to a network: what is resolved is right, and what may be otherwise is said to be open."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import Answer, settle
from ckptfix.tensors import DType, Manifest, TensorSpec


def manifest(module: nn.Module, *, in_order: bool = True) -> Manifest:
    state = module.state_dict()
    tensors = {key: TensorSpec(tuple(value.shape), DType.F32) for key, value in state.items()}
    return Manifest(tensors if in_order else dict(sorted(tensors.items())))


def answer(source: nn.Module, target: nn.Module, *, in_order: bool = True) -> Answer:
    return settle(manifest(source, in_order=in_order), manifest(target), Allowed())


def made(found: Answer) -> dict[str, tuple[str, ...]]:
    return {key: link.source_keys for link in found.links for key in link.target_keys}


def open_keys(found: Answer) -> dict[str, str]:
    return {doubt.target: doubt.why for doubt in found.ambiguous}


def perceptron(between: Callable[[], nn.Module] | None) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(20, 64)]
    for _ in range(3):
        layers += [nn.ReLU(), *([between()] if between else []), nn.Linear(64, 64)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(64, 5))


def test_numbers_that_shift_count_by_their_order() -> None:
    """With dropout in between, layer 6 becomes layer 9, and what is layer 6 there was layer 4."""
    plain, dropped = (nn.ModuleDict({"net": perceptron(between)}) for between in (None, nn.Dropout))
    for in_order in (True, False):
        found = made(answer(plain, dropped, in_order=in_order))
        numbers = zip((0, 2, 4, 6, 8), (0, 3, 6, 9, 11), strict=True)
        for old, new in numbers:
            assert found[f"net.{new}.weight"] == (f"net.{old}.weight",)
            assert found[f"net.{new}.bias"] == (f"net.{old}.bias",)


def convolutions(*, normed: bool) -> nn.Sequential:
    sizes = (3, 16, 24, 40)
    blocks = [
        nn.Sequential(nn.Conv2d(sizes[i], sizes[i + 1], 3, bias=not normed), *([nn.BatchNorm2d(sizes[i + 1])] * normed))
        for i in range(3)
    ]
    return nn.Sequential(*blocks)


def test_a_batch_norm_that_is_left_over_may_have_to_be_folded_in() -> None:
    found = answer(convolutions(normed=True), convolutions(normed=False))
    assert not made(found)
    assert "fold it in first" in open_keys(found)["0.0.weight"]


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(3))
        self.norm = nn.LayerNorm(8)


def test_towers_whose_names_do_not_tell_are_open() -> None:
    source = nn.ModuleDict({"user": Tower(), "item": Tower()})
    target = nn.ModuleDict({"query": Tower(), "candidate": Tower()})
    for in_order in (True, False):
        found = answer(source, target, in_order=in_order)
        assert not made(found)


def test_a_decoder_may_be_counted_from_the_other_end() -> None:
    """Its sizes show it: 8, 16 and 32 channels on one side, 32, 16 and 8 on the other."""

    def stage(width: int) -> nn.Module:
        return nn.ModuleDict({"conv": nn.Conv2d(width, width, 3), "norm": nn.GroupNorm(4, width)})

    rising, falling = (nn.ModuleList(map(stage, widths)) for widths in ((8, 16, 32, 64), (64, 32, 16, 8)))
    found = made(answer(nn.ModuleDict({"up": rising}), nn.ModuleDict({"up_blocks": falling})))
    assert found == {
        f"up_blocks.{3 - i}.{rest}": (f"up.{i}.{rest}",)
        for i in range(4)
        for rest in ("conv.weight", "conv.bias", "norm.weight", "norm.bias")
    }


def test_the_other_of_two_attentions_is_the_cross_attention() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sa = nn.ModuleDict({f"w{part}": nn.Linear(8, 8) for part in "qkvo"})
            self.ca = nn.ModuleDict({f"w{part}": nn.Linear(8, 8) for part in "qkvo"})
            self.ff = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8))
            self.ln1, self.ln2, self.ln3 = (nn.LayerNorm(8) for _ in range(3))

    layer = nn.TransformerDecoderLayer(8, 2, 24)
    source = nn.ModuleDict({"layers": nn.ModuleList([layer, layer, layer])})
    target = nn.ModuleDict({"blocks": nn.ModuleList(Own() for _ in range(3))})
    found = made(answer(source, target))
    assert found["blocks.1.sa.wq.weight"] == ("layers.1.self_attn.in_proj_weight",)
    assert found["blocks.1.ca.wv.bias"] == ("layers.1.multihead_attn.in_proj_bias",)
    assert found["blocks.1.ca.wo.bias"] == ("layers.1.multihead_attn.out_proj.bias",)
    assert found["blocks.1.ln2.weight"] == ("layers.1.norm2.weight",)


def test_a_bare_square_matrix_may_be_applied_from_either_side() -> None:
    source = nn.ParameterDict({"text_projection": nn.Parameter(torch.zeros(64, 64))})
    target = nn.ModuleDict({"text_projection": nn.Linear(64, 64, bias=False)})
    want = manifest(target)
    named = Manifest(want.tensors, owners={"text_projection.weight": "Linear"})
    found = settle(manifest(source), named, Allowed())
    assert not found.links


def test_keys_and_values_are_not_taken_for_queries_keys_and_values() -> None:
    """Their rows add up to those of the fused tensor, which has queries as well."""
    block = {"attn.k.weight": (8, 8), "attn.v.weight": (8, 8), "mlp.weight": (32, 8)}
    wanted = {"attn.qkv.weight": (16, 8), "mlp.weight": (32, 8)}
    have, want = (
        Manifest({f"h.{i}.{key}": TensorSpec(shape, DType.F32) for i in range(3) for key, shape in side.items()})
        for side in (block, wanted)
    )
    assert set(made(settle(have, want, Allowed()))) == {f"h.{i}.mlp.weight" for i in range(3)}


class ByRole(nn.Module):
    """An encoder that keeps a list for each part: `norm1.0`, `norm1.1`, ... where others have `0.norm1`, `1.norm1`."""

    def __init__(self) -> None:
        super().__init__()
        self.ffns = nn.ModuleList(nn.ModuleDict({"lin1": nn.Linear(8, 24), "lin2": nn.Linear(24, 8)}) for _ in range(3))
        self.layer_norm1 = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.layer_norm2 = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))


class ByLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(8, 24), nn.Linear(24, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)


def test_lists_by_role_become_lists_by_layer() -> None:
    target = nn.ModuleDict({"layers": nn.ModuleList(ByLayer() for _ in range(3))})
    for in_order in (True, False):
        found = made(answer(ByRole(), target, in_order=in_order))
        for i in range(3):
            assert found[f"layers.{i}.norm1.weight"] == (f"layer_norm1.{i}.weight",)
            assert found[f"layers.{i}.norm2.bias"] == (f"layer_norm2.{i}.bias",)


def test_the_two_directions_of_a_recurrent_network_are_told_apart() -> None:
    def tagger(rnn: str, head: str) -> nn.Module:
        layers = {rnn: nn.LSTM(8, 16, num_layers=2, bidirectional=True), head: nn.Linear(32, 5)}
        return nn.ModuleDict({"embed": nn.Embedding(50, 8), **layers})

    for in_order in (True, False):
        found = made(answer(tagger("lstm", "out"), tagger("encoder", "classifier"), in_order=in_order))
        assert found == {
            key: (key.replace("encoder.", "lstm.").replace("classifier.", "out."),)
            for key in tagger("encoder", "classifier").state_dict()
        }


def test_the_length_of_a_weight_is_not_filled_beside_its_direction() -> None:
    def layers(normed: bool) -> nn.Module:
        made = (nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8))
        return nn.Sequential(
            *(nn.utils.weight_norm(layer) if normed and hasattr(layer, "weight") else layer for layer in made)
        )

    found = answer(layers(False), layers(True))
    assert not found.filled
    assert {"0.weight_g", "2.weight_g"} <= found.unresolved.keys() | open_keys(found).keys()


def test_a_further_layer_is_not_filled() -> None:
    def stack(count: int) -> nn.Module:
        return nn.ModuleDict({"net": nn.Sequential(*(nn.Linear(8, 8) for _ in range(count)))})

    found = answer(stack(4), stack(5))
    assert not found.filled
    assert found.unresolved["net.4.weight"].why.startswith("of a further block")
    assert found.unresolved["net.4.weight"].why.endswith("copy it from 'net.3'")
    recurrent = [nn.ModuleDict({"rnn": nn.LSTM(8, 8, layers)}) for layers in (3, 4)]
    found = answer(*recurrent)
    assert not found.filled
    assert found.unresolved.keys() == {f"rnn.{kind}_{gate}_l3" for kind in ("weight", "bias") for gate in ("ih", "hh")}


def test_a_norm_in_front_shifts_the_numbers() -> None:
    """What is layer 0 there is layer 1 here, though layer 1 has its shape on both sides."""

    def stack(*first: nn.Module) -> nn.Module:
        return nn.ModuleDict({"net": nn.Sequential(*first, *(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3))})

    for in_order in (True, False):
        found = made(answer(stack(), stack(nn.LayerNorm(8)), in_order=in_order))
        wanted = {f"net.{i + 1}.{rest}": (f"net.{i}.{rest}",) for i in range(4) for rest in ("weight", "bias")}
        assert found.items() <= wanted.items()
        assert found["net.2.weight"] == ("net.1.weight",)
