"""Whole pickled modules: the keys, order and bytes of their `state_dict()`, in every container."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
import transformers
from torch import nn

from ckptfix.formats import open_checkpoint

from .making import CONTAINERS, assert_same, write


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.statistic = torch.ones(7)  # neither a parameter nor a buffer
        self.settings = {"weight": torch.ones(3)}
        self.register_parameter("absent", None)
        self.register_buffer("nothing", None)
        self.register_buffer("transient", torch.zeros(1), persistent=False)
        self.register_buffer("kept", torch.ones(1, dtype=torch.bool))
        self.block = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
        self.register_buffer("late", torch.tensor(3))
        self.again = self.block
        self.tied = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)
        self.head.weight = self.tied.weight
        self.empty = None


def _bert() -> nn.Module:
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=20
    )
    return transformers.BertModel(config)


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "every kind of attribute": _Net,
    "wrapped": lambda: nn.DataParallel(_Net()),
    "recurrent": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2),
    "attention": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2),
    "lists": lambda: nn.ModuleDict(
        {
            "listed": nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(3))]),
            "named": nn.ParameterDict({"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.zeros(3))}),
            "children_": nn.ModuleList([nn.Linear(1, 1), nn.Identity(), nn.Embedding(3, 2)]),
        }
    ),
    "spectral norm by hooks": lambda: nn.utils.spectral_norm(nn.Linear(3, 4)),
    "half": lambda: nn.Linear(3, 4).to(torch.bfloat16),
    "resnet18": torchvision.models.resnet18,
    "bert": _bert,
}


@pytest.mark.parametrize("case", _MODULES)
def test_keys_are_those_of_the_state_dict(case: str, tmp_path: Path) -> None:
    module = _MODULES[case]()
    expected = dict(module.state_dict())
    for kind, options in CONTAINERS.items():
        torch.save({"epoch": 1, "model": module}, tmp_path / "x.pt", **options)
        checkpoint = open_checkpoint(tmp_path / "x.pt")
        assert (checkpoint.format, checkpoint.select) == (kind, "model")
        assert_same(checkpoint, expected)
    for protocol in (2, 4):
        checkpoint = open_checkpoint(write(tmp_path / "x.pkl", pickle.dumps(module, protocol)))
        assert (checkpoint.format, checkpoint.select) == ("pickle", "")
        assert_same(checkpoint, expected)
