"""What fits and may be otherwise all the same: blocks counted from the other end, torn blocks, merged patches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import timm
from torch import nn

from ckptfix.inference.link import Link, Open
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import settle
from ckptfix.inference.torn import Torn
from ckptfix.tensors import DType, Manifest, TensorSpec
from tests.inference.test_edits import answer, convolutions, made, manifest, open_keys


def refining(blocks: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleDict({"reduce": nn.Conv2d(16, 8, 1), "smooth": nn.Conv2d(8, 16, 3)}) for _ in range(blocks)
    )


@pytest.mark.parametrize(("called", "resolved"), [("fusion", False), ("stage", True)])
def test_alike_blocks_of_a_decoder_may_be_counted_from_the_other_end(called: str, resolved: bool) -> None:
    """Unless neither side is called a decoder of feature maps, or both are called alike."""
    source = nn.ModuleDict({"layers": refining(4)})
    found = answer(source, nn.ModuleDict({called: refining(4)}))
    assert bool(made(found)) is resolved
    if not resolved:
        assert set(open_keys(found).values()) == {"the blocks may be counted from the other end, as decoders are"}
    alike = nn.ModuleDict({called: refining(4), "stem": nn.Conv2d(3, 16, 3)})
    wrapped = nn.ModuleDict({"model": alike})
    assert len(made(answer(alike, wrapped))) == len(alike.state_dict())


def merging(order: str) -> nn.Module:
    """Build a Swin transformer by timm's names, or by OpenMMLab's."""
    model = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, depths=(2, 2), num_heads=(2, 4))
    if order == "channels first":
        for layer in model.layers:
            for block in layer.blocks:
                block.attn = nn.ModuleDict({"w_msa": block.attn})
    return model


def test_merged_patches_lie_otherwise_in_a_file_of_openmmlab() -> None:
    source, target = merging("channels first"), merging("channels last")
    found = settle(manifest(source), manifest(target), Allowed())
    doubted = {key: why for key, why in open_keys(found).items() if "downsample" in key}
    assert sorted(doubted) == [
        f"layers.1.downsample.{name}" for name in ("norm.bias", "norm.weight", "reduction.weight")
    ]
    assert all("(c h w) -> (w h c), with 2 for h and w" in why for why in doubted.values())
    same = settle(manifest(source), manifest(source), Allowed())
    assert not same.ambiguous


def test_what_leaves_its_block_is_torn_only_where_another_fits() -> None:
    shapes = {"conv.weight": (8, 8, 3, 3), "norm.bias": (8,), "down.bias": (8,)}
    have = Manifest(
        {f"up.{i}.{rest}": TensorSpec(shape, DType.F32) for i in range(3) for rest, shape in shapes.items()}
    )
    moved = {(i, "norm.bias"): j for i, j in ((0, 1), (1, 0))} | {(2, "down.bias"): 0}
    links = {
        (i, rest): Link.rename(f"up.{i}.{rest}", f"layers.{moved.get((i, rest), i)}.{rest}")
        for i in range(3)
        for rest in shapes
        if (i, rest) != (0, "down.bias")
    }
    torn = Torn(links.values(), Manifest({key: have[key] for key in have if key != "up.0.down.bias"}))
    assert {at: other for at, link in links.items() if (other := torn.find_other(link))} == {
        (0, "norm.bias"): "up.1.norm.bias",
        (1, "norm.bias"): "up.0.norm.bias",
    }


def test_what_is_beside_a_turned_decoder_is_turned_with_it() -> None:
    def side(called: str, numbered: str, out: str) -> dict[str, TensorSpec]:
        parts = {f"{numbered}{i}.weight": (8, 8, 3, 3) for i in (1, 2)} | {f"{numbered}{i}.bias": (8,) for i in (1, 2)}
        shapes = {f"unit{i}.{rest}": shape for i in (1, 2) for rest, shape in parts.items()} | {out: (8, 8, 1, 1)}
        return {f"{called}{i}.{rest}": TensorSpec(shape, DType.F32) for i in range(4) for rest, shape in shapes.items()}

    source = side("refinenet", "conv", "out.weight")
    target = side("fusion_stage.layers.", "convolution", "projection.weight")
    found = settle(Manifest(source), Manifest(target), Allowed())
    assert not found.links


@pytest.mark.parametrize("in_order", [True, False])
def test_a_bias_goes_with_its_weight(in_order: bool) -> None:
    """The weight of `out` may come from either square; so may its bias then, whatever it is called."""
    source = {"mix.dense.weight": (8, 8), "mix.dense.bias": (8,), "other.proj.weight": (8, 16), "other.proj.bias": (8,)}
    target = {"out.dense.weight": (8, 16), "out.dense.bias": (8,), "proj.weight": (8, 8), "proj.bias": (8,)}
    sides = [
        Manifest({f"layers.{i}.{key}": TensorSpec(shape, DType.F32) for i in range(3) for key, shape in side.items()})
        for side in (source if in_order else dict(sorted(source.items())), target)
    ]
    found = made(settle(*sides, Allowed()))
    for key, sources in found.items():
        if key.endswith("out.dense.bias"):
            assert sources[0].endswith("other.proj.bias")


def test_a_fold_is_doubted_whatever_names_say() -> None:
    """A module that counts its batches is a batch norm, even where no word is known."""
    folded, normed = (convolutions(normed=normed).state_dict() for normed in (False, True))
    names = {"weight": "soqefo", "bias": "bawaqe", "running_mean": "gudifo", "running_var": "wepeko"}
    have = {
        f"{module}.{names.get(last, 'marufe')}": TensorSpec(
            tuple(value.shape), DType.I64 if "num" in last else DType.F32
        )
        for (module, last), value in ((key.rsplit(".", 1), value) for key, value in normed.items())
    }
    want = {key: TensorSpec(tuple(value.shape), DType.F32) for key, value in folded.items()}
    assert not settle(Manifest(have), Manifest(want), Allowed()).links


def test_a_bias_that_the_target_lacks_says_nothing_against_the_weight() -> None:
    """Unless nothing but order and shapes speaks for the weight, or the target has a bias elsewhere in the module."""
    shapes = {"attn.qkv.weight": (24, 8), "attn.qkv.bias": (24,), "fc.weight": (8, 8), "fc.bias": (8,)}

    def found(rename: dict[str, str], **more: tuple[int, ...]) -> set[str]:
        have = {f"blocks.{i}.{key}": TensorSpec(shape, DType.F32) for i in range(3) for key, shape in shapes.items()}
        kept = {rename.get(key, key): shape for key, shape in shapes.items() if key != "attn.qkv.bias"} | more
        want = {f"layers.{i}.{key}": TensorSpec(shape, DType.F32) for i in range(3) for key, shape in kept.items()}
        return {key.partition(".")[2][2:] for key in made(settle(Manifest(have), Manifest(want), Allowed()))}

    assert "attn.qkv.weight" in found({})
    assert "blip.zorf.weight" not in found({"attn.qkv.weight": "blip.zorf.weight"})
    assert "attn.qkv.weight" not in found({}, **{"attn.q_bias": (9,)})


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_further_layer_of_a_recurrent_network_is_no_part_of_another(kind: type[nn.RNNBase]) -> None:
    found = answer(*(nn.ModuleDict({"rnn": kind(16, 16, layers)}) for layers in (3, 2)))
    assert len(made(found)) == 8 and not found.ambiguous
    assert len(found.unused) == 4


def test_one_reason_for_all_blocks() -> None:
    """The length of each weight is named with `*` for the number of the layer, and a key that is alone by its own."""

    def layers(normed: bool, count: int = 3) -> nn.Module:
        made = (nn.Linear(8, 8) for _ in range(count))
        return nn.ModuleDict({"net": nn.ModuleList(nn.utils.weight_norm(layer) if normed else layer for layer in made)})

    for count, name in ((3, "net.*.weight_g"), (1, "net.0.weight_g")):
        found = answer(layers(True, count), layers(False, count))
        assert set(open_keys(found).values()) == {
            f"'{name}' of the same module is left over, and may have to be folded in (op `call`, fn fold_weight_norm)"
        }
        assert len(found.ambiguous) == count


def linears(*widths: int, between: Callable[[int], list[nn.Module]]) -> nn.Sequential:
    """Build linear layers, and after each but the last what `between` gives for its width."""
    layers: list[nn.Module] = []
    for have, want in pairwise(widths):
        layers += [nn.Linear(have, want), *between(want)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 5))


def test_a_batch_norm_right_after_a_linear_layer_may_have_to_be_folded_in() -> None:
    """Not one behind an activation: that cannot be folded in."""
    plain = linears(20, 64, 32, between=lambda width: [nn.ReLU()])
    for in_order in (True, False):
        found = answer(
            linears(20, 64, 32, between=lambda width: [nn.BatchNorm1d(width), nn.ReLU()]), plain, in_order=in_order
        )
        why = "the batch norm right after it is left over: fold it in first (op `call`, fn fold_batch_norm)"
        assert open_keys(found) == dict.fromkeys(("0.weight", "0.bias", "2.weight", "2.bias"), why)
        behind = answer(
            linears(20, 64, 32, between=lambda width: [nn.ReLU(), nn.BatchNorm1d(width)]), plain, in_order=in_order
        )
        assert not behind.ambiguous and len(made(behind)) == 6


def test_adapters_name_the_function_that_merges_them() -> None:
    def layers(adapted: bool) -> nn.Module:
        parts = {"q": nn.Linear(8, 8)}
        if adapted:
            parts["q"].lora_A, parts["q"].lora_B = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        return nn.ModuleDict({"net": nn.ModuleDict(parts)})

    whys = open_keys(answer(layers(True), layers(False)))
    assert whys["net.q.weight"].endswith("may have to be folded in (op `call`, fn merge_lora)")


def test_a_file_of_adapters_needs_its_base_model() -> None:
    layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(8, 8), "v": nn.Linear(8, 8)}) for _ in range(3))
    adapters = {
        f"base_model.model.{i}.{part}.lora_{side}.weight": TensorSpec(shape, DType.F32)
        for i in range(3)
        for part in "qv"
        for side, shape in (("A", (2, 8)), ("B", (8, 2)))
    }
    found = settle(Manifest(adapters), manifest(layers), Allowed())
    assert found.unresolved.keys() == layers.state_dict().keys()
    [reason] = set(found.unresolved.values())
    assert reason.why.startswith("the file holds adapters only, which need the weights that they adapt")
    assert set(reason.beside) == adapters.keys()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_layer_of_a_recurrent_network_that_the_file_lacks(kind: type[nn.RNNBase]) -> None:
    """No layer is half of another, nor a direction of the other direction."""
    one, two, both = (
        nn.ModuleDict({"rnn": kind(16, 32, layers, bidirectional=turned)})
        for layers, turned in ((1, False), (2, False), (1, True))
    )
    for target, lacking in ((two, "_l1"), (both, "_l0_reverse")):
        found = answer(one, target)
        assert {reason.why for reason in found.unresolved.values()} == {
            "of a layer or direction of 'rnn' that the checkpoint lacks: fill it"
        }
        assert found.unresolved.keys() == {key for key in target.state_dict() if key.endswith(lacking)}


def test_a_recurrent_layer_of_another_input_is_not_taken_for_one_that_is_lacking() -> None:
    layers = {"hidden": nn.Linear(32, 24), "out": nn.Linear(24, 4)}
    found = answer(*(nn.ModuleDict({"rnn": nn.LSTM(width, 32), **layers}) for width in (16, 20)))
    assert {key: reason.why.partition(";")[0] for key, reason in found.unresolved.items()} == {
        "rnn.weight_ih_l0": "'rnn.weight_ih_l0' has the shape [128, 16], the target's is [128, 20]"
    }


def test_a_bias_whose_weight_is_of_another_width_is_open() -> None:
    found = answer(*(timm.create_model("vit_tiny_patch16_224", embed_dim=width, depth=2) for width in (192, 384)))
    assert open_keys(found) == {"head.bias": "the weight that it goes with, 'head.weight' [1000, 192], is left over"}
    assert {reason.why for reason in found.unresolved.values()} == {
        "only 0% of the target has a source ('cls_token' has the shape [1, 1, 192], the target's is [1, 1, 384]): "
        "is it the right one?"
    }


def test_a_namesake_of_another_shape_is_named_with_both() -> None:
    found = answer(
        *(
            timm.create_model("vit_tiny_patch16_224", global_pool="avg", class_token=own, depth=2)
            for own in (True, False)
        )
    )
    why = (
        "'pos_embed' has the shape [1, 197, 192], the target's is [1, 196, 192]; "
        "no resize is known: write the rule by hand, or `fill` it"
    )
    assert found.unresolved == {"pos_embed": Open(why, ("pos_embed",))}


def test_the_block_to_copy_is_the_last_one() -> None:
    """The same for all of its tensors, and never the other norm of the block."""
    found = answer(*(timm.create_model("vit_tiny_patch16_224", depth=depth) for depth in (3, 5)))
    assert {reason.why for reason in found.unresolved.values()} == {
        "of a further block, which the checkpoint lacks: fill it, or copy it from 'blocks.2'"
    }
    assert len(found.unresolved) == 24
