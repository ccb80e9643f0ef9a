"""Heads of one task that fit another's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from torch import nn

from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import settle
from tests.inference.test_edits import answer, made, manifest, open_keys


class Network(nn.Module):
    """A small trunk, and linear heads by name and width."""

    def __init__(self, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        for name, width in heads.items():
            self.add_module(name, nn.Linear(16, width))


def test_a_head_is_not_taken_for_that_of_another_task() -> None:
    found = answer(Network({"age": 1, "gender": 2, "race": 5}), Network({"age": 1, "smile": 2, "race": 5}))
    assert set(open_keys(found)) == {"smile.weight", "smile.bias"}
    assert "heads of different tasks" in open_keys(found)["smile.weight"]
    assert made(found)["age.weight"] == ("age.weight",)
    assert made(found)["race.weight"] == ("race.weight",)


@pytest.mark.parametrize(
    ("old", "new"),
    [("depth_head", "normals_head"), ("head_aux", "head_seg"), ("age", "smile"), ("classifier", "qa_outputs")],
)
def test_the_last_head_is_not_either(old: str, new: str) -> None:
    assert set(open_keys(answer(Network({old: 4}), Network({new: 4})))) == {f"{new}.weight", f"{new}.bias"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("head", "classifier"),
        ("fc", "last_linear"),
        ("cls_head", "classifier"),
        ("age", "age_out"),
    ],
)
def test_a_head_that_is_called_so_in_other_words_is_the_same(old: str, new: str) -> None:
    assert made(answer(Network({old: 4}), Network({new: 4})))[f"{new}.weight"] == (f"{old}.weight",)


class Deep(nn.Module):
    """A layer of a given name, and one after it that takes what it gives."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.add_module(name, nn.Linear(16, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 3)


def test_a_layer_inside_may_be_renamed_at_will() -> None:
    assert made(answer(Deep("entry"), Deep("bottleneck")))["bottleneck.weight"] == ("entry.weight",)


def test_a_table_of_tokens_is_no_head() -> None:
    class Encoder(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.add_module(name, nn.Embedding(40, 16))
            self.norm = nn.LayerNorm(16)
            self.head = nn.Linear(16, 3)

    source, target = Encoder("src_tok_emb"), Encoder("embedding")
    described = replace(manifest(target), owners={"embedding.weight": "Embedding"})
    assert any(
        link.target_keys == ("embedding.weight",) for link in settle(manifest(source), described, Allowed()).links
    )
