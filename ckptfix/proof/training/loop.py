"""Train one model under one policy with one seed, and record what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from msgspec import Struct, field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ckptfix.errors import InvalidCall
from ckptfix.proof.data.base import Data, Examples, Inputs
from ckptfix.proof.freeze import Frozen, digest_tensor
from ckptfix.proof.training.forward import forward, move
from ckptfix.proof.training.recalibrate import find_recalibrated, recalibrate

Batches = Sequence[Sequence[int]]
Precision = Literal["float32", "bfloat16", "float16"]


class Rates(Struct, frozen=True):
    """Learning rates: of tensors that were loaded, of those that were filled, and of a random start."""

    loaded: float = 5e-4
    filled: float = 5e-3
    scratch: float = 1e-3
    unknown: float = 1e-3
    """Of any tensor where no receipt tells loaded from filled."""

    @classmethod
    def all_equal(cls, rate: float) -> Rates:
        """Train everything at one rate."""
        return cls(rate, rate, rate, rate)


class Settings(Struct, frozen=True):
    """How to train. `rates` are for AdamW, warmed up over a tenth of the steps and let down as a cosine."""

    epochs: int
    batch_size: int
    rates: Rates
    device: torch.device
    precision: Precision


class Run(Struct, frozen=True):
    """What one policy did with one seed. `loss` has a value per step, `accuracy` (0 to 1) one per epoch.

    `seconds` is the whole run, `train_seconds` its steps without evaluation. `drifted` are frozen keys that
    changed, `moved` counts the trainable parameters that did, `recalibrated` the BatchNorms whose statistics were
    recomputed before each evaluation.
    """

    seed: int
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    test_loss: tuple[float, ...]
    seconds: float
    train_seconds: float
    drifted: tuple[str, ...]
    moved: int
    recalibrated: int


class _Record(Struct):
    """The curves while they grow."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    train_seconds: float = 0.0


def draw_batches(examples: int, epochs: int, batch_size: int, seed: int) -> list[list[list[int]]]:
    """Draw the order of the training rows: epochs of batches of rows, the same for the same arguments.

    The batches of an epoch differ by at most one row, since BatchNorm learns noise from a small last batch.
    """
    generator = torch.Generator().manual_seed(seed)
    count = math.ceil(examples / batch_size)
    return [
        [part.tolist() for part in torch.randperm(examples, generator=generator).tensor_split(count)]
        for _ in range(epochs)
    ]


def train_policy(
    frozen: Frozen,
    data: Data,
    settings: Settings,
    *,
    seed: int,
    filled: Collection[str] | None,
    tick: Callable[[int, float], None],
) -> Run:
    """Train the model of `frozen` in place; stop at the first loss that is not finite.

    `tick` hears of every step: its number from 1 and its loss. Randomness (dropout) starts from `seed`, and the
    state of torch's generators is put back.
    """
    model = frozen.model.to(settings.device)
    before = frozen.digests()
    start = {key: digest_tensor(parameter) for key, parameter in frozen.named_parameters()}
    norms = find_recalibrated(model, frozen.held)
    order = draw_batches(len(data.train), settings.epochs, settings.batch_size, seed)
    record = _Record()
    started = time.perf_counter()
    devices = [settings.device] if settings.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        step = _Stepper(frozen, settings, filled, total=sum(map(len, order)))
        for epoch in order:
            if not _train_epoch(step, model, data.train, epoch, record, tick):
                break
            with torch.random.fork_rng(devices):  # data of the user's may draw: training must not notice
                _evaluate(model, data, norms, epoch, settings, record)
    seconds = time.perf_counter() - started
    return Run(
        seed,
        tuple(record.loss),
        tuple(record.accuracy),
        tuple(record.test_loss),
        seconds,
        record.train_seconds,
        drifted=tuple(frozen.drifted(before)),
        moved=sum(digest_tensor(parameter) != start[key] for key, parameter in frozen.named_parameters()),
        recalibrated=len(norms),
    )


class _Stepper:
    """An optimizer with its schedule and, in half precision, its loss scale."""

    def __init__(self, frozen: Frozen, settings: Settings, filled: Collection[str] | None, total: int) -> None:
        self.settings = settings
        self.optimizer = torch.optim.AdamW(_group(frozen, settings.rates, filled))
        warmup = max(1, total // 10)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _scale(step, warmup, total))
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "float16")

    def __call__(self, model: nn.Module, inputs: Inputs, labels: Tensor) -> float:
        """Take one step; give the loss before it. A loss that is not finite moves nothing."""
        with _autocast(self.settings):
            logits = forward(model, move(inputs, self.settings.device))
        loss = cross_entropy(logits.float(), labels.to(self.settings.device))
        value = loss.item()
        if not loss.requires_grad:
            raise InvalidCall("the output depends on no parameter that trains", hint="freeze less, or other modules")
        if math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(self.scaler.scale(loss))
            self.scaler.step(self.optimizer)
            scale = self.scaler.get_scale()
            self.scaler.update()
            if self.scaler.get_scale() >= scale:  # a smaller scale: the gradient overflowed and the step was skipped
                self.schedule.step()
        return value


def _scale(step: int, warmup: int, total: int) -> float:
    """Scale the learning rate of a step from 0: a linear warm-up, then half a cosine."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _group(frozen: Frozen, rates: Rates, filled: Collection[str] | None) -> list[dict[str, object]]:
    """Sort the trainable parameters by learning rate; vectors (norms, biases) are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for key, parameter in frozen.named_parameters():
        if frozen.policy.kind == "scratch":
            rate = rates.scratch
        elif filled is None:
            rate = rates.unknown
        else:
            rate = rates.filled if key in filled else rates.loaded
        groups.setdefault((rate, 0.01 if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def _autocast(settings: Settings) -> torch.autocast:
    mixed = settings.precision != "float32"
    dtype = torch.float16 if settings.precision == "float16" else torch.bfloat16
    return torch.autocast(settings.device.type, dtype=dtype, enabled=mixed)


def _train_epoch(
    step: _Stepper,
    model: nn.Module,
    examples: Examples,
    epoch: Batches,
    record: _Record,
    tick: Callable[[int, float], None],
) -> bool:
    """Train over the batches of one epoch; tell whether every loss was finite."""
    model.train()
    for rows in epoch:
        inputs, labels = examples.gather(rows)
        started = time.perf_counter()
        record.loss.append(step(model, inputs, labels))
        record.train_seconds += time.perf_counter() - started
        tick(len(record.loss), record.loss[-1])
        if not math.isfinite(record.loss[-1]):
            return False
    return True


def _evaluate(
    model: nn.Module,
    data: Data,
    norms: Sequence[nn.modules.batchnorm._BatchNorm],
    epoch: Batches,
    settings: Settings,
    record: _Record,
) -> None:
    """Measure the test set, after the statistics of `norms` were recomputed over the training set."""
    if norms:
        with _autocast(settings):
            recalibrate(model, norms, (move(data.train.gather(rows)[0], settings.device) for rows in epoch))
    model.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(data.test), 64):
            inputs, labels = data.test.gather(range(start, min(start + 64, len(data.test))))
            with _autocast(settings):
                logits = forward(model, move(inputs, settings.device))
            labels = labels.to(settings.device)
            right += int((logits.argmax(dim=1) == labels).sum())
            loss += cross_entropy(logits.float(), labels, reduction="sum").item()
    record.accuracy.append(right / len(data.test))
    record.test_loss.append(loss / len(data.test))
