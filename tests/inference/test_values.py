"""Values tell the parameters of norms apart where names do not, and tell nothing where that is not clear."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

import ckptfix
from ckptfix.inference.suggestion import Suggestion
from ckptfix.inference.values import tell_kinds
from tests.cli.test_imports import imported
from tests.inference.test_blind import blind
from tests.weights import efficientnet_lite0, minilm, mobilenet_v2

Vector = NDArray[np.float64]

LETTERS = {"weight": "s", "bias": "r", "running_mean": "q", "running_var": "p", "num_batches_tracked": "o"}
KINDS = {"s": "weight", "r": "bias", "q": "mean", "p": "variance"}


def trained(seed: int, count: int = 24, channels: int = 32) -> list[dict[str, Vector]]:
    """Draw batch norms as training leaves them: mean and deviation of a channel go with its filter's length."""
    chance = np.random.default_rng(seed)
    norms: list[dict[str, Vector]] = []
    for _ in range(count):
        length = np.exp(0.7 * chance.standard_normal(channels))
        norms.append(
            {
                "s": 0.5 + 0.1 * chance.standard_normal(channels),
                "r": 0.3 * chance.standard_normal(channels) - 0.1,
                "q": length * chance.standard_normal(channels),
                "p": length**2 * (0.5 + chance.random(channels)),
            }
        )
    return norms


def drawn(seed: int, *, constant: bool = False) -> list[dict[str, Vector]]:
    """Draw batch norms by chance, or give them as they are before training."""
    chance = np.random.default_rng(seed)
    scatter = 0.0 if constant else 1.0
    return [
        {
            "s": 1 + scatter * 0.1 * chance.standard_normal(32),
            "r": scatter * 0.05 * chance.standard_normal(32),
            "q": scatter * 0.05 * chance.standard_normal(32),
            "p": 1 + scatter * (chance.random(32) - 0.5),
        }
        for _ in range(24)
    ]


def only(norms: list[dict[str, Vector]], words: str) -> list[dict[str, Vector]]:
    return [{word: norm[word] for word in words} for norm in norms]


@pytest.mark.parametrize("seed", range(5))
def test_what_training_leaves_is_told(seed: int) -> None:
    assert tell_kinds(trained(seed)) == KINDS
    assert tell_kinds(only(trained(seed), "rs")) == {"s": "weight", "r": "bias"}


@pytest.mark.parametrize("seed", range(20))
def test_random_numbers_tell_no_mean_and_no_variance(seed: int) -> None:
    assert tell_kinds(drawn(seed)) == {}


def test_fresh_norms_tell_scale_and_offset_alone() -> None:
    fresh = drawn(0, constant=True)
    assert tell_kinds(only(fresh, "sr")) == {"s": "weight", "r": "bias"}
    assert tell_kinds(fresh) == {}


def test_what_is_not_clear_tells_nothing() -> None:
    norms = trained(0)
    assert tell_kinds([]) == {}
    assert tell_kinds(only(norms, "sp")) == {}  # two positive ones: layer scales
    assert tell_kinds(only(norms, "rq")) == {}  # two of either sign: biases of queries and values
    assert tell_kinds(only(norms[:1], "sr")) == {}  # too few elements
    assert tell_kinds(norms[:6]) == {}  # too few votes
    assert tell_kinds([norm | {"q": np.abs(norm["q"])} for norm in norms]) == {}  # means of what a rectifier gives
    assert tell_kinds([norm | {"p": norm["p"] - 0.01} for norm in norms]) == {}  # a variance below 0
    upside_down = {"s": norms[0]["r"], "r": norms[0]["s"]}
    assert tell_kinds([upside_down, *only(norms[1:], "sr")]) == {}  # one norm says the contrary


class Branches(nn.Module):
    """Two convolutions of one shape, each with its norm: nothing but names tells the two apart."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.ModuleDict({"conv": nn.Conv2d(3, 32, 3), "norm": nn.BatchNorm2d(32)})
        self.right = nn.ModuleDict({"conv": nn.Conv2d(3, 32, 3), "norm": nn.BatchNorm2d(32)})


class Chain(nn.Module):
    """Convolutions of different shapes, each with its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ModuleList(nn.Conv2d(3 + i, 32, 3, bias=False) for i in range(24))
        self.norm = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(24))


def fill(model: nn.Module) -> dict[str, Tensor]:
    """Give a state dict whose norms look trained."""
    state = model.state_dict()
    modules = sorted({key.rpartition(".")[0] for key in state if key.endswith("running_var")})
    for module, norm in zip(modules, trained(0, len(modules)), strict=True):
        for word, letter in LETTERS.items():
            if letter in norm:
                state[f"{module}.{word}"] = torch.tensor(norm[letter], dtype=torch.float32)
    return state


def suggest(state: Mapping[str, Tensor], target: str | nn.Module, folder: Path, *without: str) -> Suggestion:
    torch.save(dict(state), folder / "blind.pth")
    return ckptfix.suggest(folder / "blind.pth", target, without=without)  # type: ignore[arg-type]


def wrong(suggestion: Suggestion, target: str | nn.Module, expected: Mapping[str, Tensor], folder: Path) -> list[str]:
    """List what is resolved and does not have the value that it should have."""
    out = folder / "out.safetensors"
    ckptfix.adapt(folder / "blind.pth", target, out, suggestion.recipe, gaps="write", existing="replace")
    made = load_file(out)
    return [key for key in suggestion.resolved if not torch.equal(made[key], expected[key])]


def test_norms_follow_convolutions_that_are_known_and_no_others(tmp_path: Path) -> None:
    words = LETTERS | {"conv": "zu", "norm": "ka", "left": "fi", "right": "do"}
    for model, share in ((Chain(), 1.0), (Branches(), 0.0)):
        state = fill(model)
        renamed = {
            re.sub(r"[a-z_]+", lambda word: words.get(word[0], word[0]), key): value for key, value in state.items()
        }
        suggestion = suggest(renamed, model, tmp_path)
        assert len(suggestion.resolved) == share * len(state)
        assert wrong(suggestion, model, state, tmp_path) == []


def test_mean_and_variance_apart_from_scale_and_offset_are_not_taken_for_these(tmp_path: Path) -> None:
    state = fill(Chain())
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        module, _, word = key.rpartition(".")
        branch = "gif" if word.startswith("running") else "mob"
        renamed[f"{branch}.{module.replace('norm', 'ka').replace('conv', 'zu')}.{LETTERS[word]}"] = value
    suggestion = suggest(renamed, Chain(), tmp_path)
    assert wrong(suggestion, Chain(), state, tmp_path) == []
    assert not any(key.startswith("norm") for key in suggestion.resolved)


@pytest.mark.parametrize(("words", "imports"), [({}, set()), (LETTERS, {"numpy"})], ids=["named", "blind"])
def test_values_are_read_where_names_do_not_tell(words: Mapping[str, str], imports: set[str], tmp_path: Path) -> None:
    state = fill(Chain())
    torch.save(state, tmp_path / "want.pth")
    manifest = ckptfix.open(tmp_path / "want.pth").manifest
    (tmp_path / "target.json").write_text(json.dumps(manifest.to_json()))
    renamed = {re.sub(r"\w+$", lambda word: words.get(word[0], word[0]), key): state[key] for key in state}
    torch.save(renamed, tmp_path / "have.pth")
    found = imported("suggest", "have.pth", "target.json", cwd=tmp_path)
    assert found & {"numpy", "torch"} == imports


@pytest.mark.parametrize("order", ["defined", "sorted"])
@pytest.mark.parametrize(
    ("path", "target", "least"),
    [
        (mobilenet_v2(), "timm:mobilenetv2_100", 0.98),
        (efficientnet_lite0(), "timm:tf_efficientnet_lite0", 0.98),
        (minilm() / "model.safetensors", f"hf:{minilm()}?class=BertModel", 0.4),
    ],
    ids=["mobilenet_v2", "efficientnet_lite0", "minilm"],
)
def test_published_weights_under_blind_names(path: Path, target: str, least: float, order: str, tmp_path: Path) -> None:
    named = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    ckptfix.adapt(path, target, tmp_path / "named.safetensors", ckptfix.suggest(path, target).recipe)
    expected = load_file(tmp_path / "named.safetensors")
    names = blind(named, seed=1)
    keys = sorted(named, key=names.__getitem__) if order == "sorted" else list(named)
    state = {names[key]: named[key] for key in keys}
    with_values = suggest(state, target, tmp_path)
    assert wrong(with_values, target, expected, tmp_path) == []
    assert len(with_values.resolved) >= least * len(expected)
    assert len(suggest(state, target, tmp_path, "values").resolved) < 0.25 * len(expected)
