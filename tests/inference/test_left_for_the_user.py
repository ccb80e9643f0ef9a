"""What a reason names is never dropped: the recipe leaves it, and says so, until the user decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import ckptfix
from ckptfix.errors import IncompletePlan
from ckptfix.inference.suggestion import Suggestion


def suggest(source: nn.Module, target: nn.Module, folder: Path) -> tuple[Suggestion, frozenset[str]]:
    """Give the suggestion, and the source keys that its recipe leaves where they are. Such a recipe is not complete."""
    torch.save(source.state_dict(), folder / "source.pth")
    found = ckptfix.suggest(folder / "source.pth", target)
    with pytest.raises(IncompletePlan):
        ckptfix.adapt(folder / "source.pth", target, folder / "out.safetensors", found.recipe)
    report = ckptfix.check(folder / "source.pth", target, found.recipe)
    return found, frozenset(row.key for row in (*report.unexpected, *report.mismatched))


def named(**parts: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(parts)


def test_the_length_of_a_weight(tmp_path: Path) -> None:
    source = named(stem=weight_norm(nn.Conv1d(4, 6, 3)), mid=nn.Linear(6, 7), head=nn.Linear(7, 2))
    target = named(stem=nn.Conv1d(4, 6, 3), mid=nn.Linear(6, 7), head=nn.Linear(7, 2))
    found, left = suggest(source, target, tmp_path)
    halves = {f"stem.parametrizations.weight.original{half}" for half in (0, 1)}
    assert not {"stem.weight"} & found.resolved.keys()
    assert halves <= left


def test_a_batch_norm_to_be_folded(tmp_path: Path) -> None:
    source = named(conv=nn.Conv2d(3, 8, 3, bias=False), norm=nn.BatchNorm2d(8), head=nn.Conv2d(8, 5, 1))
    target = named(conv=nn.Conv2d(3, 8, 3, bias=False), head=nn.Conv2d(8, 5, 1))
    found, left = suggest(source, target, tmp_path)
    [doubt] = found.ambiguous
    norm = {f"norm.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert doubt.target == "conv.weight" and norm == set(doubt.beside)
    assert left == norm


class Adapted(nn.Module):
    """A linear layer as PEFT wraps it."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.base_layer = nn.Linear(width, out)
        self.lora_A = named(default=nn.Linear(width, 2, bias=False))
        self.lora_B = named(default=nn.Linear(2, out, bias=False))


def perceptron(layer: Callable[[int, int], nn.Module]) -> nn.Module:
    blocks = [named(norm=nn.LayerNorm(8), fc1=layer(8, 24), fc2=nn.Linear(24, 8)) for _ in range(4)]
    return named(layers=nn.ModuleList(blocks), head=nn.Linear(8, 3))


def test_adapters(tmp_path: Path) -> None:
    found, left = suggest(perceptron(Adapted), perceptron(nn.Linear), tmp_path)
    assert {doubt.target for doubt in found.ambiguous} >= {f"layers.{i}.fc1.weight" for i in range(4)}
    assert left >= {f"layers.{i}.fc1.lora_{part}.default.weight" for i in range(4) for part in "AB"}


class Positions(nn.Module):
    """Two layers around a table whose size no resize explains."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.bias_table = nn.Parameter(torch.zeros(shape))
        self.last = nn.Linear(8, 3)


def test_a_table_of_another_size(tmp_path: Path) -> None:
    found, left = suggest(Positions(7, 11, 13), Positions(9, 5), tmp_path)
    assert found.unresolved["bias_table"].beside == ("bias_table",)
    assert left == {"bias_table"}
    [entry] = found.to_json()["unresolved"]
    assert (entry["target"], entry["beside"]) == ("bias_table", ["bias_table"])


def test_what_no_reason_names_is_dropped(tmp_path: Path) -> None:
    source = named(body=nn.Linear(6, 8), extra=nn.Linear(11, 13), last=nn.Linear(8, 3))
    torch.save(source.state_dict(), tmp_path / "source.pth")
    target = named(body=nn.Linear(6, 8), last=nn.Linear(8, 3))
    found = ckptfix.suggest(tmp_path / "source.pth", target)
    assert found.is_complete and ckptfix.check(tmp_path / "source.pth", target, found.recipe).compatible


def test_a_table_that_the_example_has_grown(tmp_path: Path) -> None:
    table = nn.Embedding(20, 8)
    source, target = named(wte=table, last=nn.Linear(8, 3)), named(wte=nn.Embedding(24, 8), last=nn.Linear(8, 3))
    example = dict(source.state_dict()) | {"wte.weight": torch.cat([table.weight.data, torch.randn(4, 8)])}
    torch.save(source.state_dict(), tmp_path / "source.pth")
    torch.save(example, tmp_path / "example.pth")
    found = ckptfix.suggest(tmp_path / "source.pth", target, example=tmp_path / "example.pth")
    assert found.unresolved["wte.weight"].why.startswith("it holds all of 'wte.weight'")
    report = ckptfix.check(tmp_path / "source.pth", target, found.recipe)
    assert [row.key for row in report.mismatched] == ["wte.weight"]
