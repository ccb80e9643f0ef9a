"""What is measured: ckptfix's own inference, and simpler ways to pair tensors."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import ckptfix.api
from benchmarks.judge import Output, Tools
from benchmarks.pair import Pair
from ckptfix.errors import CkptfixError
from ckptfix.expr import sources


@dataclass(frozen=True)
class Answer:
    """What a method made of a pair, what it left open, and the seconds that it took to think."""

    output: Output = field(default_factory=Output)
    ambiguous: int = 0
    unresolved: int = 0
    filled: int = 0
    rules: int = 0
    seconds: float = 0.0
    error: str | None = None


def run_suggest(source: Path, lockfile: Path, without: Sequence[str]) -> Answer:
    """Infer a recipe, and write what it gives."""
    suggest: Callable[..., Any] = ckptfix.suggest
    started = perf_counter()
    found = suggest(str(source), f"shapes:{lockfile}", **({"without": tuple(without)} if without else {}))
    seconds = perf_counter() - started
    recipe = ckptfix.load_recipe(found.recipe)
    claimed = frozenset(found.resolved)
    answer = Answer(
        Output(claimed=claimed),
        ambiguous=len(found.ambiguous),
        unresolved=len(found.unresolved),
        filled=len(found.filled),
        rules=len(recipe.rules),
        seconds=seconds,
    )
    out = source.with_name(f"{source.name}.out.safetensors")
    try:
        adapted = ckptfix.adapt(source, f"shapes:{lockfile}", out, recipe, gaps="write", digests="none")
    except CkptfixError as error:
        return replace(answer, error=str(error))
    made_of = {key: sources(row.expr) for key, row in adapted.plan.outputs.items()}
    return replace(answer, output=Output(load_file(out), made_of, claimed))


def run_baseline(tools: Tools, name: str, pair: Pair) -> Answer:
    """Pair tensors one to one by a baseline that comes with the pairs."""
    shapes = pair.shapes
    method: Callable[[Any, Any], Mapping[str, Any]] = tools.load("baselines").METHODS[name]
    started = perf_counter()
    found = method(shapes, pair.target["keys"])
    seconds = perf_counter() - started
    chosen = {key: expression["from"] for key, expression in found.items()}
    tensors = {key: pair.source[keys[0]] for key, keys in chosen.items()}
    left = len(pair.target["keys"]) - len(chosen)
    return Answer(Output(tensors, chosen, frozenset(chosen)), unresolved=left, seconds=seconds)


def run_weightbridge(pair: Pair) -> Answer:
    """Map by the weightbridge package, first strictly, then with gaps; what it prints is kept out."""
    adapt: Callable[..., Any] = import_module("weightbridge").adapt

    have = {key: value.to(torch.float64).numpy() for key, value in pair.source.items()}
    want = {key: np.full(entry[0], np.nan) for key, entry in pair.target["keys"].items()}
    started = perf_counter()
    error = None
    for tolerant in (False, True):
        options = {"ignore_unmatched_inputs": tolerant, "ignore_unmatched_outputs": tolerant}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                made = adapt(have, want, in_format="pytorch", out_format="pytorch", **options)
        except Exception as raised:  # noqa: BLE001  it raises what it likes
            error = error or f"{type(raised).__name__}: {raised}"
            continue
        tensors = {key: torch.as_tensor(np.asarray(value)) for key, value in made.items() if not np.isnan(value).all()}
        left = len(want) - len(tensors)
        return Answer(Output(tensors, {}, frozenset(tensors)), unresolved=left, seconds=perf_counter() - started)
    return Answer(unresolved=len(want), seconds=perf_counter() - started, error=error)
