"""`adapt --also`: training goes on after an adaptation as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ckptfix
from ckptfix.errors import InvalidCall, UnsupportedOutput

from ..cli.running import call


class Fused(nn.Module):
    """Three equal projections in one matrix, two blocks, a norm with statistics, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(6, 18) for _ in range(2))
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.qkv:
            q, k, v = layer(x).chunk(3, dim=-1)
            x = x + torch.tanh(q * k) + v
        return self.head(self.norm(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.q(x) * self.k(x)) + self.v(x)


class Split(nn.Module):
    """The same function, its modules defined in another order and under other names."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classifier = nn.Linear(6, classes)
        self.bn = nn.BatchNorm1d(6)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.bn(x))


RULES: list[dict[str, Any]] = [
    {
        "op": "rearrange",
        "from": "qkv.{i}.{p}",
        "to": ["blocks.{i}.q.{p}", "blocks.{i}.k.{p}", "blocks.{i}.v.{p}"],
        "layout": "(q+k+v) ... -> q ..., k ..., v ...",
    },
    {"op": "rename", "map": {"norm.{p}": "bn.{p}", "head.{p}": "classifier.{p}"}},
]
RECIPE = {"ckptfix": 1, "rules": RULES}
NEW_HEAD = {
    "ckptfix": 1,
    "rules": [
        *RULES,
        {"op": "drop", "keys": "classifier.*"},
        {"op": "fill", "keys": "classifier.*", "value": "target"},
    ],
}


def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    chance = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 6, generator=chance), torch.randint(0, 3, (8,), generator=chance)) for _ in range(5)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> list[float]:
    losses: list[float] = []
    for x, y in batches(seed):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def by_decay(model: nn.Module) -> list[dict[str, Any]]:
    """Weights decay, biases and norms do not: the usual two groups."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


OPTIMIZERS = {
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    "adamw in two groups": lambda model: torch.optim.AdamW(by_decay(model), lr=1e-2),
    "amsgrad": lambda model: torch.optim.Adam(model.parameters(), lr=1e-2, amsgrad=True),
    "capturable": lambda model: torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-2), foreach=False),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
    "plain": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2),
    "named": lambda model: torch.optim.Adam(model.named_parameters(), lr=1e-2),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-3),
}


def trained(make: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Fused()
    optimizer = make(model)
    train(model, optimizer, 1)
    return model, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_it_would_have(name: str, tmp_path: Path) -> None:
    model, optimizer = trained(OPTIMIZERS[name])
    source, out = tmp_path / "last.pt", tmp_path / "adapted.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}, source)
    target = Split()
    adapted = ckptfix.adapt(source, target, out, RECIPE, also=["optimizer"])
    assert adapted.companions is not None
    (carried,) = adapted.companions.carried
    moments = name != "plain"
    assert sorted(carried.kept) == (sorted(key for key, _ in target.named_parameters()) if moments else [])

    loaded = torch.load(out, weights_only=True)
    assert loaded["epoch"] == 7
    target.load_state_dict(loaded["model"])
    resumed = OPTIMIZERS[name](target)
    resumed.load_state_dict(loaded["optimizer"])
    expected, found = train(model, optimizer, 2), train(target, resumed, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if moments:  # the test can fail: without its state the training goes another way
        target.load_state_dict(loaded["model"])
        anew = train(target, OPTIMIZERS[name](target), 2)
        assert max(abs(a - b) for a, b in zip(anew, expected, strict=True)) > 1e-4


def test_what_a_rule_made_anew_starts_anew(tmp_path: Path) -> None:
    model, optimizer = trained(OPTIMIZERS["adamw in two groups"])
    source, out = tmp_path / "last.pt", tmp_path / "adapted.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, source)
    target = Split(classes=5)
    adapted = ckptfix.adapt(source, target, out, NEW_HEAD, also=["optimizer"])
    assert adapted.companions is not None
    (carried,) = adapted.companions.carried
    assert dict(carried.reset) == dict.fromkeys(["classifier.weight", "classifier.bias"], "made anew by a rule")
    loaded = torch.load(out, weights_only=True)
    target.load_state_dict(loaded["model"])
    resumed = OPTIMIZERS["adamw in two groups"](target)
    resumed.load_state_dict(loaded["optimizer"])
    names = {parameter: key for key, parameter in target.named_parameters()}
    for group in resumed.param_groups:
        for parameter in group["params"]:
            key = names[parameter]
            assert (parameter in resumed.state) == (not key.startswith("classifier")), key
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), key
    old = {key: optimizer.state[parameter]["exp_avg"] for key, parameter in model.named_parameters()}
    new = {names[parameter]: state["exp_avg"] for parameter, state in resumed.state.items()}
    assert torch.equal(torch.cat([new[f"blocks.1.{p}.weight"] for p in "qkv"]), old["qkv.1.weight"])
    train(target, resumed, 2)


def test_only_the_head_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Fused()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-2)
    train(model, optimizer, 1)
    source, out = tmp_path / "last.pt", tmp_path / "adapted.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, source)
    target = Split()
    ckptfix.adapt(source, target, out, RECIPE, also=["optimizer"])
    resumed = torch.optim.Adam(target.classifier.parameters(), lr=1e-2)
    resumed.load_state_dict(torch.load(out, weights_only=True)["optimizer"])
    state = resumed.state[target.classifier.weight]
    assert torch.equal(state["exp_avg"], optimizer.state[model.head.weight]["exp_avg"])


def test_an_average_of_the_weights_goes_along(tmp_path: Path) -> None:
    model, _ = trained(OPTIMIZERS["adam"])
    average = {f"module.{key}": (value / 2).to(value.dtype) for key, value in model.state_dict().items()}
    source, out = tmp_path / "last.pt", tmp_path / "adapted.pt"
    torch.save({"model": {"state": model.state_dict()}, "ema": average, "best": 0.5}, source)
    recipe = {**RECIPE, "source": {"select": "ema", "strip": "module."}}
    ckptfix.adapt(source, Split(), out, recipe, also=["model.state"])
    loaded = torch.load(out, weights_only=True)
    assert loaded["best"] == 0.5
    for key, value in loaded["model"]["state"].items():
        assert torch.equal(loaded["ema"][key], (value / 2).to(value.dtype)), key


def test_the_file_is_framed_as_it_was(tmp_path: Path) -> None:
    """A file of Lightning: the optimizers in a list, callbacks with plain and other values beside."""
    model, optimizer = trained(OPTIMIZERS["adam"])
    source, out = tmp_path / "last.ckpt", tmp_path / "adapted.pth"
    beside = {
        "epoch": 3,
        "global_step": 1 << 40,
        "loops": {"fit": {"done": [1, 2, (3, None)], "rate": -1.5}},
        "lr_schedulers": [{"last_epoch": 3, "base": -7}],
        "pytorch-lightning_version": "2.4.0",
    }
    odd = {"hyper_parameters": {"path": Path("x")}, "rng": torch.get_rng_state()}
    states = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    torch.save({**beside, **odd, **states}, source)
    adapted = ckptfix.adapt(source, Split(), out, RECIPE, also=["optimizer"])
    assert adapted.companions is not None
    assert set(adapted.companions.left_out) == set(odd)
    loaded = torch.load(out, weights_only=True)
    assert {key: loaded[key] for key in beside} == beside
    assert loaded["optimizer_states"][0]["param_groups"][0]["betas"] == (0.9, 0.999)
    Split().load_state_dict(loaded["state_dict"])
    assert ckptfix.verify(out, Split(), source=source, recipe=RECIPE).ok


def test_the_command_reports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, optimizer = trained(OPTIMIZERS["adam"])
    source, target = tmp_path / "last.pt", tmp_path / "target.pth"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "args": Path("x")}, source)
    torch.save(Split().state_dict(), target)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    asked = ["adapt", source, target, "-r", tmp_path / "recipe.json", "--also", "optimizer"]
    assert call(*asked, "-o", tmp_path / "a.pth") == 0
    shown = capsys.readouterr().out
    assert "optimizer: the state of 16 of 16 parameters goes along\nleft out: args\n" in shown
    assert call(*asked, "-o", tmp_path / "b.pth", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["also"][0].pop("kept")) == 16
    assert document["also"] == [{"path": "optimizer", "reset": {}}]
    assert document["left_out"] == ["args"]


@pytest.mark.parametrize(
    ("also", "name", "error", "message"),
    [
        ("optimizer", "out.safetensors", UnsupportedOutput, "one flat state dict and nothing beside it"),
        ("ema", "out.pth", InvalidCall, "has nothing at #ema"),
    ],
)
def test_what_cannot_go_along_is_refused(
    also: str, name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    model, optimizer = trained(OPTIMIZERS["adam"])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "last.pt")
    with pytest.raises(error, match=message):
        ckptfix.adapt(tmp_path / "last.pt", Split(), tmp_path / name, RECIPE, also=[also])
    assert not (tmp_path / name).exists()


def test_a_selection_without_a_place_of_its_own_is_refused(tmp_path: Path) -> None:
    model, optimizer = trained(OPTIMIZERS["adam"])
    torch.save({"nets": [model.state_dict()], "optimizer": optimizer.state_dict()}, tmp_path / "last.pt")
    ckptfix.adapt(f"{tmp_path}/last.pt#nets.0", Split(), tmp_path / "out.pth", RECIPE, also=["optimizer"])
    Split().load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True)["nets"][0])
    with pytest.raises(InvalidCall, match=r"#nets\[0\] is no place .*name a state dict: #nets.0"):
        ckptfix.adapt(f"{tmp_path}/last.pt#nets[0]", Split(), tmp_path / "no.pth", RECIPE, also=["optimizer"])


def test_a_file_that_is_an_optimizer_has_no_weights_to_go_along_with(tmp_path: Path) -> None:
    _, optimizer = trained(OPTIMIZERS["adam"])
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    whole = f"{tmp_path}/optimizer.pt#."
    with pytest.raises(InvalidCall, match="the 8 parameters of '' fit the state dict"):
        ckptfix.adapt(whole, f"shapes:{whole}", tmp_path / "out.pth", also=["optimizer"])


def test_without_an_optimizer_there_is_none(tmp_path: Path) -> None:
    torch.save(Fused().state_dict(), tmp_path / "last.pt")
    with pytest.raises(InvalidCall, match="holds no optimizer"):
        ckptfix.adapt(tmp_path / "last.pt", Split(), tmp_path / "out.pth", RECIPE, also=["optimizer"])


def test_an_order_that_shapes_do_not_tell_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Fused()
    optimizer = torch.optim.Adam(model.qkv[1].parameters(), lr=1e-2)
    train(model, optimizer, 1)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "last.pt")
    with pytest.raises(InvalidCall, match=r"2 parameters of 'optimizer' fit .* more than one way.*named_parameters"):
        ckptfix.adapt(tmp_path / "last.pt", Split(), tmp_path / "out.pth", RECIPE, also=["optimizer"])
