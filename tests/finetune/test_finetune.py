"""Fine-tuning under several policies: what it measures, what it proves, and what it refuses."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from ckptfix.errors import InvalidCall, UnmatchedPattern, VerificationFailed
from ckptfix.proof.data.base import Data, Inputs
from ckptfix.proof.data.load import load_data
from ckptfix.proof.freeze import freeze
from ckptfix.proof.training.finetune import finetune
from ckptfix.proof.training.forward import forward, output_width
from ckptfix.proof.training.loop import Rates, Settings, draw_batches, train_policy
from ckptfix.proof.training.recalibrate import find_recalibrated, recalibrate
from ckptfix.proof.training.report import FinetuneReport

from .conftest import SmallNet, seeded

Build = Callable[[int], nn.Module]


@pytest.fixture(scope="module")
def pretrained(digits: Data) -> dict[str, Tensor]:
    """A checkpoint whose body was trained, and whose head is fresh."""
    model = seeded(SmallNet)(7)
    settings = Settings(6, 16, Rates.all_equal(3e-3), torch.device("cpu"), "float32")
    train_policy(freeze(model, "unfrozen"), digits, settings, seed=7, filled=None, tick=lambda step, loss: None)
    fresh = seeded(SmallNet)(8).state_dict()
    return {key: fresh[key] if key.startswith("head") else tensor for key, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def report(pretrained: dict[str, Tensor], digits: Data) -> FinetuneReport:
    policies = ["frozen", "partial:features.0,features.1", "unfrozen", "scratch"]
    filled = {"head.weight", "head.bias"}
    return finetune(seeded(SmallNet), pretrained, digits, policies, filled=filled, seeds=(0, 1), epochs=6, device="cpu")


def test_every_policy_learns_and_nothing_frozen_moves(report: FinetuneReport) -> None:
    assert report.ok, report.problems
    for result in report.policies.values():
        assert result.accuracy is not None and result.accuracy > 0.5
        assert result.frozen_unchanged


def test_the_document_keeps_its_contract(report: FinetuneReport) -> None:
    document: dict[str, Any] = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["schema_version"] == 1 and document["ok"] is True and document["device"] == "cpu"
    assert list(document["policies"]) == ["frozen", "partial:features.0,features.1", "unfrozen", "scratch"]
    for policy in document["policies"].values():
        assert len(policy["steps"]) == len(policy["loss"]) == len(policy["loss_range"]) == 6 * 3
        assert policy["accuracy_epochs"] == [1, 2, 3, 4, 5, 6]
        assert len(policy["accuracy"]) == len(policy["accuracy_range"]) == 6
        assert all(low <= mean <= high for mean, (low, high) in zip(policy["loss"], policy["loss_range"], strict=True))
        assert policy["seconds"] >= policy["train_seconds"] > 0
        assert policy["last_epoch_loss"] < policy["first_epoch_loss"]


def test_what_is_frozen_trained_and_recalibrated_is_counted(report: FinetuneReport) -> None:
    documents = {name: result.to_json() for name, result in report.policies.items()}
    total = sum(parameter.numel() for parameter in SmallNet().parameters())
    head = 16 * 9 * 4 + 4
    counted = {
        name: (d["trainable_params"], d["frozen_keys"], d["held_in_eval"], d["recalibrated_modules"])
        for name, d in documents.items()
    }
    assert counted == {
        "frozen": (head, 12, 2, 0),
        "partial:features.0,features.1": (total - 72 - 16, 6, 1, 1),
        "unfrozen": (total, 0, 0, 2),
        "scratch": (total, 0, 0, 2),
    }
    assert [d["recalibrated"] for d in documents.values()] == [False, True, True, True]
    assert all(d["frozen_unchanged"] for d in documents.values())


def test_the_seeds_differ_and_give_a_range(report: FinetuneReport) -> None:
    runs = report.policies["unfrozen"].runs
    assert [run.seed for run in runs] == [0, 1]
    assert runs[0].loss != runs[1].loss
    low, high = report.policies["unfrozen"].to_json()["loss_range"][-1]  # type: ignore[index]
    assert low == min(run.loss[-1] for run in runs) and high == max(run.loss[-1] for run in runs)


def test_the_same_call_gives_the_same_numbers_and_leaves_the_generator_alone(
    build: Build, pretrained: dict[str, Tensor], digits: Data
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (
        finetune(build, pretrained, digits, ["unfrozen"], filled=None, seeds=(3,), epochs=2, device="cpu")
        for _ in range(2)
    )
    a, b = (r.policies["unfrozen"].runs[0] for r in (first, second))
    assert (a.loss, a.accuracy, a.test_loss) == (b.loss, b.accuracy, b.test_loss)
    assert torch.equal(state, torch.get_rng_state())
    assert "loss_range" not in first.to_json()["policies"]["unfrozen"]  # type: ignore[index]


@dataclass(frozen=True)
class Recording:
    """Passes examples on and notes which rows were asked for."""

    inner: Any
    asked: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.inner)

    def gather(self, rows: Any) -> tuple[Inputs, Tensor]:
        self.asked.append(tuple(rows))
        return self.inner.gather(rows)


def test_every_policy_sees_the_same_batches_in_the_same_order(
    build: Build, pretrained: dict[str, Tensor], digits: Data, head: frozenset[str]
) -> None:
    seen = {}
    for policy in ("frozen", "partial:features.0", "scratch"):
        asked: list[tuple[int, ...]] = []
        data = replace(digits, train=Recording(digits.train, asked))
        finetune(build, pretrained, data, [policy], filled=head, epochs=2, device="cpu")
        seen[policy] = asked
    plan = [tuple(rows) for epoch in draw_batches(40, 2, 16, seed=0) for rows in epoch]
    assert seen["frozen"] == plan
    # The others read every epoch a second time, to recalibrate.
    twice = plan[:3] * 2 + plan[3:] * 2
    assert seen["partial:features.0"] == seen["scratch"] == twice


def test_batches_cover_each_epoch_once_and_are_nearly_equal() -> None:
    epochs = draw_batches(50, 3, 16, seed=1)
    for epoch in epochs:
        assert sorted(row for rows in epoch for row in rows) == list(range(50))
        assert [len(rows) for rows in epoch] == [13, 13, 12, 12]
    assert epochs[0] != epochs[1]
    assert epochs == draw_batches(50, 3, 16, seed=1) != draw_batches(50, 3, 16, seed=2)


def accuracy_of(model: nn.Module, data: Data) -> float:
    x, y = data.test.gather(range(len(data.test)))
    with torch.no_grad():
        return (forward(model.eval(), x).argmax(dim=1) == y).float().mean().item()


class DeepNet(nn.Sequential):
    """Twelve BatchNorms in a row: what is stale in their statistics adds up."""

    def __init__(self) -> None:
        blocks = [
            nn.Sequential(nn.Conv2d(1 if depth == 0 else 8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            for depth in range(12)
        ]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 4))


def test_without_recalibration_accuracy_sits_at_chance(digits: Data) -> None:
    model = seeded(DeepNet)(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for epoch in draw_batches(len(digits.train), 5, 16, seed=0):
        for rows in epoch:
            x, y = digits.train.gather(rows)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    stale = accuracy_of(model, digits)
    batches = [digits.train.gather(rows)[0] for rows in draw_batches(len(digits.train), 1, 16, seed=0)[0]]
    recalibrate(model, find_recalibrated(model, ()), batches)
    assert stale < 0.35 < 0.7 < accuracy_of(model, digits)


def test_training_recalibrates_before_it_evaluates(digits: Data) -> None:
    report = finetune(
        seeded(DeepNet), {}, digits, ["scratch"], filled=None, epochs=5, lr=3e-3, batch_size=16, device="cpu"
    )
    accuracy = report.policies["scratch"].accuracy
    assert accuracy is not None and accuracy > 0.7


def test_recalibration_leaves_what_is_held_and_the_momentum(net: nn.Module, digits: Data) -> None:
    frozen = freeze(net, "partial:features.1")
    before = frozen.digests()
    norms = find_recalibrated(net, frozen.held)
    assert norms == [net.features[4]]
    x = digits.train.gather(range(16))[0]
    recalibrate(net, norms, [x])
    assert frozen.drifted(before) == []
    assert norms[0].momentum == 0.1 and not any(module.training for module in net.modules())
    with torch.no_grad():
        expected = net.features[:4](x).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norms[0].running_mean, expected)


def test_a_frozen_buffer_that_drifts_fails_the_run(digits: Data, pretrained: dict[str, Tensor]) -> None:
    class Drifting(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            self.features[1].running_mean += 1e-3
            return super().forward(x)

    report = finetune(
        seeded(Drifting), pretrained, digits, ["frozen"], filled={"head.weight", "head.bias"}, epochs=2, device="cpu"
    )
    document = report.to_json()["policies"]["frozen"]  # type: ignore[index]
    assert not report.ok and document["frozen_unchanged"] is False
    assert document["drifted"] == ["features.1.running_mean"]
    assert "frozen, seed 0: 1 of 12 frozen tensors changed: features.1.running_mean" in report.problems


def test_a_loss_that_is_not_finite_stops_its_policy_alone(
    build: Build, pretrained: dict[str, Tensor], digits: Data, head: frozenset[str]
) -> None:
    broken = {**pretrained, "features.0.weight": torch.full_like(pretrained["features.0.weight"], math.inf)}
    report = finetune(build, broken, digits, ["frozen", "scratch"], filled=head, epochs=3, device="cpu")
    assert report.problems == ["frozen, seed 0: the training loss is nan at step 1"]
    document = report.to_json()["policies"]["frozen"]  # type: ignore[index]
    assert document["loss"] == [None] and document["accuracy"] == [] and document["last_epoch_loss"] is None
    assert report.policies["frozen"].accuracy is None
    json.dumps(report.to_json(), allow_nan=False)


def test_a_huge_learning_rate_fails(build: Build, pretrained: dict[str, Tensor], digits: Data) -> None:
    report = finetune(build, pretrained, digits, ["unfrozen"], filled=None, epochs=3, lr=1e9, device="cpu")
    assert not report.ok
    assert report.problems[0].startswith("unfrozen, seed 0: the training loss")


def test_a_learning_rate_of_zero_fails(build: Build, pretrained: dict[str, Tensor], digits: Data) -> None:
    report = finetune(build, pretrained, digits, ["unfrozen"], filled=None, epochs=3, lr=0, device="cpu")
    assert "unfrozen, seed 0: training moved no parameter" in report.problems
    assert any("did not fall: mean" in problem for problem in report.problems)


def test_progress_counts_every_step_of_every_run(build: Build, pretrained: dict[str, Tensor], digits: Data) -> None:
    heard: list[tuple[int, int, str]] = []
    finetune(
        build, pretrained, digits, ["unfrozen", "scratch"], filled=None, seeds=(0, 1), epochs=2, device="cpu",
        progress=lambda done, total, text: heard.append((done, total, text)),
    )  # fmt: skip
    assert [done for done, _, _ in heard] == list(range(1, 25)) and {total for _, total, _ in heard} == {24}
    assert heard[-1][2].startswith("scratch, seed 1, epoch 2: loss ")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"policies": ["frozen"], "filled": None}, InvalidCall, "partial:features or partial:head"),
        ({"policies": ["unfrozen", "partial:fetures"]}, UnmatchedPattern, "nearest: features"),
        ({"policies": ["scratch", "scratch"]}, InvalidCall, "given twice"),
        ({"policies": []}, InvalidCall, "no policy"),
        ({"epochs": 0}, InvalidCall, "0 epochs"),
        ({"epochs": 1, "batch_size": 64}, InvalidCall, "one step"),
        ({"lr": -1.0}, InvalidCall, "a learning rate of -1.0"),
        ({"lr": math.nan}, InvalidCall, "a learning rate of nan"),
        ({"seeds": ()}, InvalidCall, "no seed"),
        ({"device": "gpu"}, InvalidCall, "'gpu' is no device"),
        ({"device": "meta"}, InvalidCall, "does not run on 'meta'"),
        ({"device": "cuda:99"}, InvalidCall, "CUDA devices"),
    ],
)
def test_a_wrong_call_is_refused_before_the_first_step(
    build: Build,
    pretrained: dict[str, Tensor],
    digits: Data,
    change: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    call: dict[str, Any] = {"policies": ["scratch"], "filled": {"head.weight"}, "device": "cpu", **change}
    heard: list[int] = []
    with pytest.raises(error) as caught:
        finetune(
            build, pretrained, digits, call.pop("policies"),
            progress=lambda done, total, text: heard.append(done), **call,
        )  # fmt: skip
    assert text in str(caught.value)
    assert heard == []


def test_a_checkpoint_that_does_not_load_strictly_is_refused(build: Build, digits: Data) -> None:
    with pytest.raises(VerificationFailed, match=r"Missing key.*features\.0\.weight"):
        finetune(build, {"head.weight": torch.zeros(4, 144)}, digits, ["unfrozen"], filled=None, device="cpu")


def test_freezing_all_that_is_used_is_refused(digits: Data) -> None:
    class Unused(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(2, 2)

    build = seeded(Unused)
    with pytest.raises(InvalidCall, match="the output depends on no parameter that trains"):
        finetune(build, build(0).state_dict(), digits, ["partial:features,head"], filled=None, device="cpu")


class Wrapped(nn.Module):
    """A net whose output comes in a container, as `shape` says."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.inner(x))


@dataclass
class Output:
    loss: None
    logits: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: logits,
        lambda logits: (logits, torch.zeros(1)),
        lambda logits: {"aux": torch.zeros(1), "logits": logits},
        lambda logits: OrderedDict(out=logits, aux=torch.zeros(1)),
        lambda logits: Output(None, logits),
    ],
)
def test_the_scores_are_found_in_whatever_a_model_returns(wrap: Callable[[Tensor], Any]) -> None:
    model = Wrapped(wrap)
    x = torch.randn(4, 3)
    assert torch.equal(forward(model, x), model.inner(x))
    assert output_width(model, {"x": x}) == 2
    assert model.training


@pytest.mark.parametrize("wrap", [lambda logits: None, lambda logits: logits[0], lambda logits: {"a": "b"}])
def test_an_output_without_scores_is_refused(wrap: Callable[[Tensor], Any]) -> None:
    with pytest.raises(InvalidCall, match=r"fine-tuning needs class scores \[batch, classes\]"):
        forward(Wrapped(wrap), torch.randn(4, 3))


def test_a_torchvision_mobilenet_runs_under_three_policies() -> None:
    import torchvision

    build = seeded(lambda: torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.25))
    data = load_data("digits", channels=3, size=32, classes=3, train_per_class=8, test_per_class=10)
    report = finetune(
        build, build(0).state_dict(), data, ["frozen", "unfrozen", "scratch"],
        filled={"classifier.1.weight", "classifier.1.bias"}, epochs=4, batch_size=12, device="cpu",
    )  # fmt: skip
    assert all(result.frozen_unchanged for result in report.policies.values())
    frozen = report.policies["frozen"]
    assert (frozen.frozen_keys, frozen.held) == (312, 52)
    # From the same seed and state, `unfrozen` and `scratch` differ in their learning rates alone.
    assert report.policies["unfrozen"].runs[0].loss[0] == report.policies["scratch"].runs[0].loss[0]


@pytest.mark.gpu
def test_on_cuda_training_is_mixed_and_the_freeze_holds(
    build: Build, pretrained: dict[str, Tensor], digits: Data, head: frozenset[str]
) -> None:
    report = finetune(
        build, pretrained, digits, ["frozen", "partial:features.0", "unfrozen", "scratch"], filled=head, seeds=(0, 1),
        epochs=6, device="cuda",
    )  # fmt: skip
    assert report.ok, report.problems
    document = report.to_json()
    assert document["device"] == "cuda" and document["precision"] in ("bfloat16", "float16")
    assert all(result.accuracy is not None and result.accuracy > 0.5 for result in report.policies.values())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_either_half_precision_trains_on_cuda(build: Build, digits: Data, precision: Any) -> None:
    settings = Settings(6, 16, Rates.all_equal(3e-3), torch.device("cuda"), precision)
    run = train_policy(freeze(build(0), "scratch"), digits, settings, seed=0, filled=None, tick=lambda step, loss: None)
    assert all(map(math.isfinite, run.loss)) and run.loss[-1] < run.loss[0]
