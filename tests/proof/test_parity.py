"""Parity: the adapted model computes what its source computed, or the first module that differs is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ckptfix import adapt, verify
from ckptfix.proof.forward import all_finite, compare_outputs, sample_input

from ..cli.running import call
from .conftest import Case

IMAGE = (2, 1, 6, 6)


def test_the_same_weights(case: Case) -> None:
    found = verify(case.source, case.origin, parity=(case.source, case.origin), input_shape=IMAGE)
    assert found.ok and found.parity is not None
    assert (found.parity.max_abs, found.parity.first_divergent_module) == (0.0, None)


def test_a_cast_is_within_the_tolerance_of_its_dtype(case: Case) -> None:
    out = case.out.with_stem("double")
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in case.tensors().items()}
    torch.save(tensors, out.with_suffix(".pth"))
    found = verify(out.with_suffix(".pth"), case.origin, parity=(case.source, case.origin), input_shape=IMAGE)
    assert found.ok


def test_two_swapped_tensors_of_one_shape(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """Every shape fits, the load is strict, the forward pass is finite: only parity tells."""
    swap = 'ckptfix: 1\nrules:\n  - {op: rename, map: {"left.{p}": "right.{p}", "right.{p}": "left.{p}"}}\n'
    out = case.out.with_stem("swapped")
    adapt(case.source, case.origin, out, swap)
    assert verify(out, case.origin, input_shape=IMAGE).ok
    found = verify(out, case.origin, parity=(case.source, case.origin), input_shape=IMAGE)
    assert not found.ok and found.parity is not None
    assert found.parity.first_divergent_module == "left"
    assert found.parity.max_abs is not None and found.parity.max_abs > 1e-3
    (problem,) = found.problems
    assert problem.startswith("the outputs of source and target differ by ") and problem.endswith(", first in left")
    assert call("verify", out, case.origin, "--parity", case.source, case.origin, "--input", "2,1,6,6") == 1
    shown = capsys.readouterr().out
    assert "max abs difference" in shown and "first in left" in shown and "not verified" in shown


def test_outputs_of_other_shapes(case: Case) -> None:
    found = verify(case.out, case.target, parity=(case.source, case.origin), input_shape=IMAGE)
    assert not found.ok and found.parity is not None
    assert (found.parity.max_abs, found.parity.first_divergent_module) == (None, "head")
    assert found.problems == ("the outputs of source and target cannot be compared, first in head",)


def test_nan_is_no_parity_and_no_invalid_json(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = case.tensors()
    tensors["left.weight"] = torch.full_like(tensors["left.weight"], float("nan"))
    torch.save(tensors, "nan.pth")
    args = ["verify", "nan.pth", case.origin, "--parity", case.source, case.origin, "--input", "2,1,6,6", "--json"]
    assert call(*args) == 1

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document["parity"] == {"max_abs": None, "first_divergent_module": "left"}
    assert document["forward"] is False


def test_what_cannot_be_tried(case: Case, folder: Path) -> None:
    found = verify(case.source, case.origin, parity=(case.source, case.origin))
    assert found.problems == ("parity needs a target that loads, and an input shape (--input)",)
    found = verify(case.source, case.origin, parity=(case.source, case.target), input_shape=IMAGE)
    assert not found.ok and found.problems[0].startswith("parity could not be tried: RuntimeError: ")


def test_modules_correspond_by_order_where_names_differ() -> None:
    torch.manual_seed(0)
    left = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    right = nn.Sequential()
    for name, part in zip(("stem", "act", "head"), (nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), strict=True):
        right.add_module(name, part)
    right.load_state_dict(dict(zip(right.state_dict(), left.state_dict().values(), strict=True)))
    batch = sample_input((4, 3), left)
    assert compare_outputs(left, right, batch).ok
    with torch.no_grad():
        right.head.bias += 1
    found = compare_outputs(left, right, batch)
    assert found.first_divergent_module == "head" and found.max_abs == pytest.approx(1)
    with torch.no_grad():
        right.stem.bias += 1
    assert compare_outputs(left, right, batch).first_divergent_module == "stem"


def test_the_sample_is_the_same_every_time_and_in_the_module_s_dtype() -> None:
    net = nn.Linear(3, 3)
    state = torch.get_rng_state()
    assert torch.equal(sample_input((2, 3), net), sample_input((2, 3), net))
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_input((2, 3), net.bfloat16()).dtype == torch.bfloat16
    assert sample_input((2, 3), nn.Identity()).dtype == torch.float32


def test_a_model_of_tokens_is_given_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    torch.save(net.state_dict(), "tokens.pth")
    found = verify("tokens.pth", net, input_shape=(2, 40))
    assert found.problems == () and found.forward is True
    sample = sample_input((2, 40), net)
    assert sample.dtype == torch.int64 and set(sample.flatten().tolist()) == set(range(5))


def test_models_run_in_eval_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 30), nn.Dropout(), nn.BatchNorm1d(30))
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    assert compare_outputs(net, net, sample_input((4, 3), net)).max_abs == 0
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


def test_no_output_is_not_finite() -> None:
    assert not all_finite([])
    assert not all_finite([torch.ones(1), torch.tensor([float("inf")])])
    assert all_finite([torch.ones(1)])
