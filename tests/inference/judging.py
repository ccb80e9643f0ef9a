"""A suggestion held against the recipe that is known to be right, key by key, by the values that both make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

import ckptfix
from ckptfix.execute.evaluate import to_bytes
from ckptfix.execute.values import Values
from ckptfix.expr import Channels, Crop, Expr, Pad, Resize, inputs, leaves, sources
from ckptfix.formats.base import Reader
from ckptfix.inference.suggestion import Suggestion
from ckptfix.job import Job, prepare_job
from ckptfix.planning.table import Row
from ckptfix.targets.base import Target
from tests.recipes.case import Case, randomise


@dataclass(frozen=True)
class Side:
    """A recipe at work on a file: what it makes of each key, and the values."""

    job: Job
    values: Values

    @classmethod
    def of(cls, file: Path, target: Target, recipe: object, **more: object) -> Side:
        """Plan a recipe that applies."""
        job = prepare_job(file, target, recipe, **more)  # type: ignore[arg-type]
        assert not job.plan.errors
        return cls(job, Values(job.checkpoint.tensors, Reader(), target))

    def row(self, key: str) -> Row:
        """Give what is made of a key."""
        return self.job.plan.rows[key]

    def read(self, expr: Expr) -> set[bytes]:
        """Give the bytes of every tensor that an expression reads: a tied one has those of its partner."""
        return {bytes(to_bytes(self.values.tensor("", leaf))) for leaf in leaves(expr) if sources(leaf)}


@dataclass(frozen=True)
class Judgement:
    """What a suggestion is worth: the keys that it resolves wrongly, and whether it does all that the truth does."""

    suggestion: Suggestion
    wrong: list[str]
    is_whole: bool


def judge(file: Path, truth: Side) -> Judgement:
    """Let a file lead to the target of the truth, whose own file may name the same tensors otherwise."""
    suggestion = ckptfix.suggest(file, truth.job.target)
    made = Side.of(file, truth.job.target, suggestion.recipe)
    wrong = [key for key in suggestion.resolved if not agrees(key, made, truth)]
    fills = all(not sources(truth.row(key).expr) for key in suggestion.filled)
    return Judgement(suggestion, wrong, suggestion.is_complete and not wrong and fills)


def agrees(key: str, made: Side, truth: Side) -> bool:
    """Compare bytes; where a tensor is resized, which tensors it is made of."""
    have, want = made.row(key).expr, truth.row(key).expr
    if is_resized(have) or is_resized(want):
        return is_resized(have) and is_resized(want) and made.read(have) == truth.read(want)
    return bytes(to_bytes(made.values.tensor(key, have))) == bytes(to_bytes(truth.values.tensor(key, want)))


def is_resized(expr: Expr) -> bool:
    """Tell whether numbers are computed anew, or cut, for another extent."""
    return isinstance(expr, Resize | Channels | Crop | Pad) or any(map(is_resized, inputs(expr)))


def shipped(case: Case, folder: Path) -> Side:
    """Save the source of a case, no two tensors of it alike, and plan the recipe that ships."""
    torch.manual_seed(0)
    source = case.source()
    randomise(source)
    file = case.save(source, folder)
    return Side.of(file, ckptfix.target(case.target()), case.recipe, variables=dict(case.variables))
