"""Hold written tensors against what a pair's truth makes of the real values."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pair import Pair, rename_truth

_COMPUTED = ("sum", "mean", "add", "scale", "add_const", "exp")
"""Operations that round; all others only move numbers."""


@dataclass(frozen=True)
class Tools:
    """The modules that come with a folder of pairs, in it or beside it."""

    folder: Path

    @classmethod
    def find(cls, pairs: Path) -> Tools:
        """Look for them. Raises FileNotFoundError."""
        for folder in (pairs, *pairs.resolve().parents[:2]):
            if (folder / "ckpt_expr.py").exists():
                return cls(folder.resolve())
        raise FileNotFoundError(f"no ckpt_expr.py in {pairs} or above it")

    def load(self, name: str) -> ModuleType:
        """Import one of them."""
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        return importlib.import_module(name)


@dataclass(frozen=True)
class Output:
    """What a method made: tensors by target key, and the source keys of those it made from any.

    A key in `claimed` is said to be right; one that is only written is a guess, and counts as nothing.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    sources: Mapping[str, Collection[str]] = field(default_factory=dict)
    claimed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """Target keys: all that are scored, those that are claimed, those that are right, those claimed and wrong."""

    scored: tuple[str, ...]
    claimed: frozenset[str]
    right: frozenset[str]
    wrong: frozenset[str]

    @property
    def perfect(self) -> bool:
        """Whether every scored key is right."""
        return len(self.right) == len(self.scored) and not self.wrong


@dataclass(frozen=True)
class Judge:
    """Judges what is made of one pair."""

    pair: Pair
    tools: Tools

    @cached_property
    def _expr(self) -> ModuleType:
        return self.tools.load("ckpt_expr")

    def judge(self, output: Output) -> Verdict:
        """Judge by the truth, or by the one of its variants that fits best."""
        return max((self._by(truth, output) for truth in self._variants()), key=lambda verdict: len(verdict.right))

    def _variants(self) -> list[Mapping[str, Any]]:
        truth = self.pair.truth
        prefixes = truth.get("also", {}).get("__prefix_variants__", ())
        return [truth, *(rename_truth(truth, partial(_exchange, old, new)) for old, new in prefixes)]

    def _by(self, truth: Mapping[str, Any], output: Output) -> Verdict:
        unscored = set(truth.get("unscored", ()))
        scored = tuple(key for key in truth["targets"] if key not in unscored)
        right = frozenset(key for key in scored if self._is_right(key, truth, output))
        claimed = output.claimed - unscored
        return Verdict(scored, claimed, right, claimed - right)

    def _is_right(self, key: str, truth: Mapping[str, Any], output: Output) -> bool:
        answers = [truth["targets"][key], *truth.get("also", {}).get(key, ())]
        made, sources = output.tensors.get(key), output.sources.get(key, ())
        if key not in output.claimed:
            keeps = key in truth.get("init_ok", ()) or any(map(self._expr.is_init, answers))
            return keeps or (not sources and self._agrees_with_any(made, sources, answers))
        return self._agrees_with_any(made, sources, answers)

    def _agrees_with_any(self, made: Tensor | None, sources: Collection[str], answers: list[Any]) -> bool:
        return made is not None and any(self._agrees(made, sources, answer) for answer in answers)

    def _agrees(self, made: Tensor, sources: Collection[str], answer: Any) -> bool:
        expr = self._expr
        if expr.is_init(answer):
            return False
        if expr.has_op(answer, "resize"):
            return self._same_sources(sources, expr.refs(answer))
        want = torch.as_tensor(np.array(expr.evaluate(answer, self._value)), dtype=torch.float64)
        if want.shape != made.shape:
            return False
        given = ~want.isnan()  # the rows that a pad adds may hold anything
        want, have = want[given].to(made.dtype), made[given]
        if any(expr.has_op(answer, op) for op in _COMPUTED):
            return torch.allclose(have, want, rtol=1e-5, atol=1e-6)
        return torch.equal(have, want)

    def _same_sources(self, have: Collection[str], want: Collection[str]) -> bool:
        twins = {key: group[0] for group in self.pair.truth.get("tied_sources", ()) for key in group}
        return {twins.get(key, key) for key in have} == {twins.get(key, key) for key in want}

    def _value(self, key: str) -> np.ndarray[Any, Any]:
        return self.pair.source[key].to(torch.float64).numpy()


def _exchange(old: str, new: str, key: str) -> str:
    return new + key[len(old) :] if key.startswith(old) else key
