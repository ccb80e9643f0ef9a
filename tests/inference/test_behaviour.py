"""Behaviour decides what names and shapes leave open: both models run, and the recipe makes them agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchtune.models.llama2 import llama2 as torchtune_llama
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

import ckptfix
from ckptfix.errors import InvalidCall
from ckptfix.inference.behaviour import decide
from ckptfix.inference.link import Link
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import Ambiguity, Answer, settle
from ckptfix.inference.suggestion import Suggestion
from tests.cli.running import call
from tests.inference.unseen import UnseenViT
from tests.recipes.case import randomise
from tests.recipes.language import SIZES, VOCABULARY
from tests.recipes.layouts import MetaLlama, split_neox
from tests.recipes.torchtune_layouts import TORCHTUNE
from tests.recipes.vision import timm_vit, tv_vit

Model = Callable[[], nn.Module]
TOKENS = (2, 12)
IMAGES = (2, 3, 32, 32)
SMALL = SIZES | {"num_hidden_layers": 3}
WIDE = SMALL | {"hidden_size": 64, "rms_norm_eps": 1e-6}
"""Heads of 16 numbers, whose rows are turned in another way there than back."""


def llama(heads: int = 4) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**WIDE | {"num_attention_heads": heads, "num_key_value_heads": heads // 2}))


def meta_llama() -> nn.Module:
    return MetaLlama(VOCABULARY, 64, 3, 4, 2, 40)


def torchtune() -> nn.Module:
    return torchtune_llama(**TORCHTUNE | {"num_layers": 3, "num_heads": 4, "embed_dim": 64})


def neox(parallel: bool = True, heads: int = 6) -> nn.Module:
    return GPTNeoXForCausalLM(neox_config(parallel, heads))


def neox_in_parts(parallel: bool = True) -> nn.Module:
    return split_neox(neox_config(parallel))


def neox_config(parallel: bool, heads: int = 6) -> GPTNeoXConfig:
    return GPTNeoXConfig(**SMALL | {"num_attention_heads": heads}, use_parallel_residual=parallel)


def save(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "source.pth")
    return folder / "source.pth"


def randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    randomise(model)
    return model


def passes(found: Suggestion | Answer) -> int:
    """Read off the note how often the target ran."""
    (count,) = re.findall(r"([0-9]+) forward passes", "".join(found.notes))
    return int(count)


@pytest.mark.parametrize(
    ("source", "target", "shape", "most"),
    [
        pytest.param(llama, meta_llama, TOKENS, 11, id="llama-meta"),
        pytest.param(meta_llama, llama, TOKENS, 11, id="meta-llama"),
        pytest.param(llama, torchtune, TOKENS, 11, id="llama-torchtune"),
        pytest.param(torchtune, llama, TOKENS, 11, id="torchtune-llama"),
        pytest.param(neox, neox_in_parts, TOKENS, 10, id="neox-split"),
        pytest.param(neox_in_parts, neox, TOKENS, 10, id="neox-fused"),
        pytest.param(UnseenViT, timm_vit, IMAGES, 9, id="unseen-timm"),
        pytest.param(UnseenViT, tv_vit, IMAGES, 9, id="unseen-torchvision"),
    ],
)
def test_behaviour_completes_the_recipe(
    source: Model, target: Model, shape: tuple[int, ...], most: int, tmp_path: Path
) -> None:
    original = randomised(source())
    file, architecture = save(original, tmp_path), target()
    assert ckptfix.suggest(file, architecture).ambiguous
    found = ckptfix.suggest(file, architecture, parity=source(), input_shape=shape)
    assert found.is_complete
    assert "outputs differ by" in found.text
    assert passes(found) <= most
    out = tmp_path / "out.safetensors"
    ckptfix.adapt(file, architecture, out, dict(found.recipe))
    proof = ckptfix.verify(out, architecture, parity=(file, source()), input_shape=shape)
    assert proof.ok, proof.problems


@pytest.mark.parametrize(
    ("source", "target", "wrong", "why"),
    [
        pytest.param(llama, meta_llama, lambda: llama(2), "at best the outputs differ by", id="larger-heads"),
        pytest.param(neox, neox_in_parts, lambda: neox(heads=3), "at best the outputs differ by", id="other-heads"),
        pytest.param(neox, neox_in_parts, lambda: neox(parallel=False), "at best the outputs differ by", id="in-turn"),
        pytest.param(llama, meta_llama, lambda: UnseenViT(), "does not load", id="other-model"),
    ],
)
def test_a_wrong_source_architecture_decides_nothing(
    source: Model, target: Model, wrong: Model, why: str, tmp_path: Path
) -> None:
    file, architecture = save(randomised(source()), tmp_path), target()
    before = ckptfix.suggest(file, architecture)
    found = ckptfix.suggest(file, architecture, parity=wrong(), input_shape=TOKENS)
    assert (found.recipe, found.ambiguous) == (before.recipe, before.ambiguous)
    assert why in found.notes[-1]


@pytest.mark.parametrize("parallel", [True, False])
def test_two_questions_at_once(parallel: bool, tmp_path: Path) -> None:
    """The norms show beside attention where both run in parallel; else only with the right heads, as a pair."""
    source, target = randomised(neox(parallel)), neox_in_parts(parallel)
    checkpoint = ckptfix.open(save(source, tmp_path))
    architecture = ckptfix.target(target)
    answer = settle(checkpoint.manifest, architecture.manifest, Allowed())
    norms = [link for link in answer.links if "layernorm" in link.target_keys[0]]
    assert len(norms) == 3 * 2 * 2
    for link in norms:
        key = link.source_keys[0]
        other = key.replace("input", "-").replace("post_attention", "input").replace("-", "post_attention")
        answer.ambiguous.append(Ambiguity(link.target_keys[0], (other, key), "for the test"))
    answer.links = [link for link in answer.links if link not in norms]
    found = decide(answer, checkpoint, ckptfix.target(source), architecture, TOKENS)
    assert not found.ambiguous
    assert {(link.source_keys, link.target_keys) for link in norms} <= {
        (link.source_keys, link.target_keys) for link in found.links
    }
    assert passes(found) <= 30


def test_norms_that_are_alike_stay_ambiguous(tmp_path: Path) -> None:
    """A norm that was never trained is all ones: whichever goes where, the outputs are the same."""
    torch.manual_seed(0)
    file, architecture = save(UnseenViT(), tmp_path), timm_vit()
    before = ckptfix.suggest(file, architecture)
    found = ckptfix.suggest(file, architecture, parity=UnseenViT(), input_shape=IMAGES)
    assert [doubt.target for doubt in found.ambiguous] == [
        doubt.target for doubt in before.ambiguous if ".norm" in doubt.target
    ]
    assert found.ambiguous[0].why.endswith("the outputs are the same with 2 of 2 possibilities")


class Biased(nn.Module):
    """Attention whose biases are parameters of their own, and one that nothing uses."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.layer, self.names = nn.Linear(8, 24), names
        for name in names:
            setattr(self, name, nn.Parameter(torch.zeros(8)))

    def forward(self, x: Tensor) -> Tensor:
        biases = torch.cat([getattr(self, name) for name in self.names[:3]])
        return functional.scaled_dot_product_attention(*(self.layer(x) + biases).chunk(3, -1))


@pytest.mark.parametrize(
    ("candidates", "why"),
    [
        ({"q_bias": ("a",), "k_bias": ("b",)}, "the outputs take no notice of it"),
        (
            {"q_bias": ("a", "b", "spare"), "k_bias": ("b", "a", "spare")},
            "the outputs are the same with 2 of 6 possibilities",
        ),
    ],
)
def test_a_key_bias_is_never_told(candidates: dict[str, tuple[str, ...]], why: str, tmp_path: Path) -> None:
    """Softmax takes no notice of it. What else is in the same question is told."""
    source = randomised(Biased(("a", "b", "c", "spare")))
    torch.nn.init.normal_(source.get_parameter("spare"))
    checkpoint = ckptfix.open(save(source, tmp_path))
    links = [
        Link.rename(key, target)
        for key, target in (("c", "v_bias"), *((f"layer.{p}",) * 2 for p in ("weight", "bias")))
    ]
    doubts = [Ambiguity(key, keys, "") for key, keys in candidates.items()]
    target = ckptfix.target(Biased(("q_bias", "k_bias", "v_bias")))
    found = decide(Answer(links, ambiguous=doubts), checkpoint, ckptfix.target(source), target, (2, 5, 8))
    decided = [link for link in found.links if "behaviour" in link.evidence]
    assert [(link.source_keys, link.target_keys) for link in decided] == [(("a",), ("q_bias",))]
    assert [doubt.target for doubt in found.ambiguous] == ["k_bias"]
    assert why in found.ambiguous[0].why


class Attention(nn.Module):
    """Queries, keys and values by layers whose names are given."""

    def __init__(self, names: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: nn.Linear(8, 8) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*(part(x) for part in self.parts.values()))


def test_a_bias_goes_with_its_weight(tmp_path: Path) -> None:
    """The key's too, since the weight tells which layer is the key's."""
    source, target = randomised(Attention("abc")), ckptfix.target(Attention("qkv"))
    checkpoint = ckptfix.open(save(source, tmp_path))
    doubts = [
        Ambiguity(f"parts.{name}.{leaf}", tuple(f"parts.{other}.{leaf}" for other in "cab"), "")
        for leaf in ("weight", "bias")
        for name in "qkv"
    ]
    found = decide(Answer([], ambiguous=doubts), checkpoint, ckptfix.target(source), target, (2, 5, 8))
    assert {(link.source_keys[0], link.target_keys[0], link.layout) for link in found.links} == {
        (f"parts.{one}.{leaf}", f"parts.{other}.{leaf}", None)
        for one, other in zip("abc", "qkv", strict=True)
        for leaf in ("weight", "bias")
    }
    assert not found.ambiguous


class Turned(nn.Module):
    """A linear layer whose weight lies [in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_a_square_weight_is_transposed_or_not(tmp_path: Path) -> None:
    checkpoint = ckptfix.open(save(randomised(Turned()), tmp_path))
    doubts = [Ambiguity("weight", ("weight",), "")]
    for source, is_turned in ((Turned(), True), (nn.Linear(8, 8, bias=False), False)):
        target = ckptfix.target(nn.Linear(8, 8, bias=False))
        found = decide(Answer([], ambiguous=doubts), checkpoint, ckptfix.target(source), target, (2, 8))
        assert [link.layout is not None for link in found.links] == [is_turned]


class Chain(nn.Module):
    """Two rows of scales, each before a layer."""

    def __init__(self, names: str) -> None:
        super().__init__()
        self.scales = nn.ParameterDict({name: nn.Parameter(torch.zeros(4)) for name in names})
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.names = names

    def forward(self, x: Tensor) -> Tensor:
        for half, layer in zip((self.names[:5], self.names[5:]), self.layers, strict=True):
            for name in half:
                x = torch.tanh(x * self.scales[name] + 0.1)
            x = layer(x)
        return x


def test_the_forward_passes_are_bounded(tmp_path: Path) -> None:
    """Twice 120 permutations are more than are tried."""
    source, target = randomised(Chain("edcbajihgf")), Chain("klmnopqrst")
    checkpoint = ckptfix.open(save(source, tmp_path))
    links = [Link.rename(key, key) for key in source.state_dict() if key.startswith("layers")]
    doubts = [
        Ambiguity(f"scales.{key}", tuple(f"scales.{name}" for name in names), "")
        for keys, names in (("klmno", "abcde"), ("pqrst", "fghij"))
        for key in keys
    ]
    found = decide(Answer(links, ambiguous=doubts), checkpoint, ckptfix.target(source), ckptfix.target(target), (2, 4))
    assert (found.links, found.ambiguous) == (links, doubts)
    assert "200 forward passes, the most that are made" in found.notes[-1]


def test_a_file_in_half_precision_with_a_wrapper_prefix(tmp_path: Path) -> None:
    state = randomised(llama()).bfloat16().state_dict()
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "source.pth")
    found = ckptfix.suggest(tmp_path / "source.pth", meta_llama(), parity=llama(), input_shape=TOKENS)
    assert found.is_complete
    assert found.recipe["source"] == {"strip": ["module."]}


def test_what_parity_needs(tmp_path: Path) -> None:
    file = save(randomised(llama()), tmp_path)
    with pytest.raises(InvalidCall, match="--input"):
        ckptfix.suggest(file, meta_llama(), parity=llama())
    with pytest.raises(InvalidCall, match="example"):
        ckptfix.suggest(file, meta_llama(), parity=llama(), example=file)
    found = ckptfix.suggest(file, meta_llama(), parity=llama(), input_shape=(2, 3, 4, 5))
    assert "behaviour decides nothing: a forward pass on [2, 3, 4, 5] raised" in found.notes[-1]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, recipe = save(randomised(llama()), tmp_path), tmp_path / "recipe.yaml"
    architecture, own = (f"py:{__name__}:{name}" for name in ("meta_llama", "llama"))
    assert call("suggest", file, architecture, "--json") == 1
    capsys.readouterr()
    assert call("suggest", file, architecture, "--parity", own, "--input", "2,12", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ambiguous"], document["unresolved"]) == ([], [])
    assert call("suggest", file, architecture, "--parity", own, "--input", "2,12", "-o", recipe) == 0
    out = tmp_path / "out.pth"
    assert call("adapt", file, architecture, "-r", recipe, "-o", out) == 0
    assert call("verify", out, architecture, "--parity", file, own, "--input", "2,12") == 0
