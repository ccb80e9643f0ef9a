"""Fine-tune an adapted checkpoint for a few epochs under several policies, on the same data in the same order."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ckptfix.errors import InvalidCall, VerificationFailed
from ckptfix.proof.data.base import Data
from ckptfix.proof.finding import one_line
from ckptfix.proof.freeze import Frozen, Policy, freeze, parse_policy
from ckptfix.proof.training.loop import Precision, Rates, Run, Settings, train_policy
from ckptfix.proof.training.report import FinetuneReport, PolicyResult


class Progress(Protocol):
    """Hears of every step: how many are done, of how many in all policies, and a text about the present one."""

    def __call__(self, done: int, total: int, text: str) -> None: ...


Build = Callable[[int], nn.Module]
"""Gives the target really initialised on the CPU after `torch.manual_seed(seed)`."""


def finetune(
    build: Build,
    state: Mapping[str, Tensor],
    data: Data,
    policies: Sequence[str | Policy],
    *,
    filled: Collection[str] | None,
    seeds: Sequence[int] = (0,),
    epochs: int = 10,
    batch_size: int = 16,
    lr: float | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> FinetuneReport:
    """Train each policy with each seed, from `state` (loaded strictly) or, for `scratch`, from `build(seed)` as it is.

    A seed decides the order of the data, dropout, and the random start of `scratch`; what `state` holds, a filled
    head among it, is the same for all seeds. `filled` are the keys that the receipt calls filled, None without a
    receipt. `lr` replaces the rates of `Rates` by one. `device` is CUDA where there is one, else the CPU; mixed
    precision on CUDA. Everything wrong in the call is raised before the first step.
    Raises InvalidCall, UnmatchedPattern, PatternError; VerificationFailed where `state` does not load.
    """
    chosen = _parse_policies(policies)
    settings = Settings(epochs, batch_size, _rates(lr), *_find_device(device))
    per_epoch = _count_batches(len(data.train), epochs, batch_size)
    if not seeds:
        raise InvalidCall("no seed to train with")
    for policy in chosen:
        freeze(_start(build, state, policy, seeds[0]), policy, filled=filled)
    per_run = epochs * per_epoch
    plan = [(policy, seed) for policy in chosen for seed in seeds]
    results: dict[str, PolicyResult] = {}
    runs: list[Run] = []
    for number, (policy, seed) in enumerate(plan):
        frozen = freeze(_start(build, state, policy, seed), policy, filled=filled)
        tick = _tick(progress, number * per_run, len(plan) * per_run, per_epoch, f"{policy}, seed {seed}")
        runs.append(train_policy(frozen, data, settings, seed=seed, filled=filled, tick=tick))
        if len(runs) == len(seeds):
            results[policy.name] = _result(frozen, tuple(runs), per_epoch)
            runs = []
    chance = 1 / len(data.classes)
    return FinetuneReport(results, settings, tuple(seeds), data.to_json(), chance, _name_device(settings.device))


def _parse_policies(policies: Sequence[str | Policy]) -> list[Policy]:
    chosen = [parse_policy(policy) if isinstance(policy, str) else policy for policy in policies]
    names = [policy.name for policy in chosen]
    if not chosen:
        raise InvalidCall("no policy to train", hint="one of frozen, partial:PATTERN, unfrozen, scratch")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidCall(f"the policy '{twice}' is given twice", hint="for several runs of it, use more seeds")
    return chosen


def _rates(lr: float | None) -> Rates:
    if lr is None:
        return Rates()
    if not math.isfinite(lr) or lr < 0:
        raise InvalidCall(f"a learning rate of {lr}", hint="it is a number from 0 up; 0.001 is usual")
    return Rates.all_equal(lr)


def _count_batches(examples: int, epochs: int, batch_size: int) -> int:
    if epochs < 1 or batch_size < 1:
        raise InvalidCall(f"{epochs} epochs with batches of {batch_size}", hint="both are at least 1")
    batches = math.ceil(examples / batch_size)
    if epochs * batches < 2:
        raise InvalidCall("one step shows no falling loss", hint="more epochs or smaller batches")
    return batches


def _find_device(device: str | torch.device | None) -> tuple[torch.device, Precision]:
    """Choose the device and its precision. Raises InvalidCall for one that torch does not have here."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InvalidCall(f"'{device}' is no device", hint="cpu, cuda or cuda:1") from error
    if found.type == "cpu":
        return found, "float32"
    if found.type != "cuda":
        raise InvalidCall(f"fine-tuning does not run on '{found}'", hint="cpu, cuda or cuda:1")
    count = torch.cuda.device_count()
    if (found.index or 0) >= count:
        raise InvalidCall(f"'{found}': torch sees {count} CUDA devices", hint="--device cpu")
    return found, "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _name_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def _start(build: Build, state: Mapping[str, Tensor], policy: Policy, seed: int) -> nn.Module:
    """Build the model that a policy trains from."""
    model = build(seed)
    if policy.kind == "scratch":
        return model
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise VerificationFailed(
            f"the checkpoint does not load: {one_line(error)}", hint="ckptfix check lists why"
        ) from error
    return model


def _tick(
    progress: Progress | None, before: int, total: int, per_epoch: int, text: str
) -> Callable[[int, float], None]:
    def tick(step: int, loss: float) -> None:
        if progress is not None:
            progress(before + step, total, f"{text}, epoch {(step - 1) // per_epoch + 1}: loss {loss:.3f}")

    return tick


def _result(frozen: Frozen, runs: tuple[Run, ...], per_epoch: int) -> PolicyResult:
    return PolicyResult(
        frozen.policy,
        runs,
        per_epoch,
        trainable_params=sum(parameter.numel() for parameter in frozen.parameters()),
        total_params=sum(parameter.numel() for parameter in frozen.model.parameters()),
        frozen_keys=len(frozen.keys),
        held=len(frozen.held),
    )
