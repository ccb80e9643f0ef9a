"""What a fine-tune found: curves over seeds, the freeze proof, and what failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean

from msgspec import Struct
from msgspec.structs import asdict

from ckptfix.proof.freeze import Policy
from ckptfix.proof.training.loop import Run, Settings

_LEAST_FALL = 0.01
"""The part of the first loss by which it must fall: epochs differ by less through the drawing of batches alone."""


class PolicyResult(Struct, frozen=True):
    """The runs of one policy, one a seed. `frozen_keys` counts parameters and buffers, `held` modules in eval mode."""

    policy: Policy
    runs: tuple[Run, ...]
    steps_per_epoch: int
    trainable_params: int
    total_params: int
    frozen_keys: int
    held: int

    @property
    def frozen_unchanged(self) -> bool:
        """True where no frozen parameter or buffer changed a bit, in any run; also where nothing is frozen."""
        return not any(run.drifted for run in self.runs)

    @property
    def accuracy(self) -> float | None:
        """The mean accuracy over the seeds after the last epoch; None where a run did not get through one."""
        last = [run.accuracy[-1] for run in self.runs if run.accuracy]
        return fmean(last) if len(last) == len(self.runs) else None

    @property
    def problems(self) -> list[str]:
        """List what failed, with the policy, the seed and the numbers."""
        return [f"{self.policy}, seed {run.seed}: {fault}" for run in self.runs for fault in self._faults(run)]

    def compare_loss(self, run: Run) -> tuple[float, float]:
        """Give the mean training loss of the first and of the last epoch; of one epoch, of its two halves."""
        window = self.steps_per_epoch
        if len(run.loss) < 2 * window:
            window = max(1, len(run.loss) // 2)
        return fmean(run.loss[:window]), fmean(run.loss[-window:])

    def _faults(self, run: Run) -> list[str]:
        faults = []
        if run.drifted:
            named = ", ".join(run.drifted[:3]) + (", …" if len(run.drifted) > 3 else "")
            faults.append(f"{len(run.drifted)} of {self.frozen_keys} frozen tensors changed: {named}")
        if not math.isfinite(run.loss[-1]):
            faults.append(f"the training loss is {run.loss[-1]} at step {len(run.loss)}")
            return faults
        if not all(map(math.isfinite, run.test_loss)):
            faults.append("the loss on the test set is not finite")
        if not run.moved:
            faults.append("training moved no parameter")
        first, last = self.compare_loss(run)
        if not last < first * (1 - _LEAST_FALL):
            span = "epoch" if len(run.loss) >= 2 * self.steps_per_epoch else "half of the only epoch"
            faults.append(
                f"the training loss did not fall: mean {first:.4g} in the first {span}, {last:.4g} in the last"
            )
        return faults

    def to_json(self) -> dict[str, object]:
        """Give the policy's object of `finetune --json`; a number that is not finite becomes null."""
        loss = [run.loss for run in self.runs]
        accuracy = [run.accuracy for run in self.runs]
        ends = [self.compare_loss(run) for run in self.runs]
        document: dict[str, object] = {
            "steps": list(range(1, max(map(len, loss)) + 1)),
            "loss": _means(loss),
            "accuracy": _means(accuracy),
            "accuracy_epochs": list(range(1, max(map(len, accuracy)) + 1)),
            "test_loss": _means([run.test_loss for run in self.runs]),
            "first_epoch_loss": _finite(fmean(first for first, _ in ends)),
            "last_epoch_loss": _finite(fmean(last for _, last in ends)),
            "steps_per_epoch": self.steps_per_epoch,
            "trainable_params": self.trainable_params,
            "total_params": self.total_params,
            "seconds": fmean(run.seconds for run in self.runs),
            "train_seconds": fmean(run.train_seconds for run in self.runs),
            "frozen_unchanged": self.frozen_unchanged,
            "frozen_keys": self.frozen_keys,
            "held_in_eval": self.held,
            "drifted": list(dict.fromkeys(key for run in self.runs for key in run.drifted)),
            "recalibrated": any(run.recalibrated for run in self.runs),
            "recalibrated_modules": max(run.recalibrated for run in self.runs),
            "problems": self.problems,
        }
        if len(self.runs) > 1:
            document["loss_range"] = _ranges(loss)
            document["accuracy_range"] = _ranges(accuracy)
        return document


class FinetuneReport(Struct, frozen=True):
    """The whole fine-tune. `data` describes the data set, `chance` is the accuracy of guessing."""

    policies: dict[str, PolicyResult]
    settings: Settings
    seeds: tuple[int, ...]
    data: dict[str, object]
    chance: float
    device_name: str

    @property
    def ok(self) -> bool:
        """True where every loss was finite and fell, and nothing frozen moved."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """List what failed, over all policies."""
        return [problem for result in self.policies.values() for problem in result.problems]

    def to_json(self) -> dict[str, object]:
        """Give the document of `finetune --json`. Learning rates are those of AdamW at the end of the warm-up."""
        return {
            "schema_version": 1,
            "ok": self.ok,
            "device": str(self.settings.device),
            "device_name": self.device_name,
            "precision": self.settings.precision,
            "seeds": list(self.seeds),
            "epochs": self.settings.epochs,
            "batch_size": self.settings.batch_size,
            "learning_rates": asdict(self.settings.rates),
            "data": self.data,
            "chance": self.chance,
            "problems": self.problems,
            "policies": {name: result.to_json() for name, result in self.policies.items()},
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _columns(curves: Sequence[Sequence[float]]) -> list[list[float]]:
    """Turn a curve per seed into the values per step, of the seeds that got there."""
    return [[value for value in column if value is not None] for column in zip_longest(*curves)]


def _means(curves: Sequence[Sequence[float]]) -> list[float | None]:
    return [_finite(fmean(column)) for column in _columns(curves)]


def _ranges(curves: Sequence[Sequence[float]]) -> list[list[float | None]]:
    return [[_finite(min(column)), _finite(max(column))] for column in _columns(curves)]
