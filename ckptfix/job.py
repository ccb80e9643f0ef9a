"""A job: a source and a target, opened, and the plan between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.errors import InvalidCall
from ckptfix.formats import Checkpoint, open_checkpoint, wrapper_prefixes
from ckptfix.targets import resolve
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from torch.nn import Module

    from ckptfix.keys import VarValue
    from ckptfix.planning import Plan
    from ckptfix.recipe import Recipe

    Architecture = str | Path | Target | Module
    """A target URI, the path of a lockfile or checkpoint, or a module in memory."""
    RecipeLike = Recipe | str | Path | Mapping[str, Any] | None
    """A path, the text of a recipe (more than one line), plain values, or None for no rules."""

Source = str | Path | Checkpoint
"""A path, `FILE#PATH` for one of several state dicts, or an opened checkpoint."""


def open(source: Source, *, select: str | None = None) -> Checkpoint:  # noqa: A001  the library's verb
    """Open a checkpoint: its manifest, where its bytes lie, and what it would have run. Reads headers only.

    Raises SourceNotFound, ReadFailed, AmbiguousSource, NoTensors, and RefusedContent for a broken file.
    """
    if isinstance(source, Checkpoint):
        return source
    if not isinstance(source, str | Path):
        raise InvalidCall(f"a checkpoint is a file, not a {type(source).__name__}", hint="give its path")
    return open_checkpoint(source, select=select)


def target(architecture: Architecture) -> Target:
    """Find what an architecture wants. Raises UnknownTarget, TargetBuildError or MissingDependency."""
    return architecture if isinstance(architecture, Target) else resolve(architecture)


class Job(Struct, frozen=True):
    """A source, a target, and the plan that leads from one to the other."""

    checkpoint: Checkpoint
    target: Target
    plan: Plan


def prepare_job(
    source: Source,
    architecture: Architecture,
    recipe: RecipeLike = None,
    variables: Mapping[str, VarValue] | None = None,
    *,
    max_output: int | Literal["default"] | None = None,
) -> Job:
    """Open both sides and plan. Raises what opening either side and reading the recipe raise.

    `max_output` bounds the bytes that are made; "default" by the size of the source's files.
    """
    from ckptfix.planning import default_budget, make_plan
    from ckptfix.recipe import load_recipe

    loaded = load_recipe(recipe)
    checkpoint = open(source, select=loaded.source.select)
    found = target(architecture)
    made = make_plan(
        loaded,
        checkpoint.manifest,
        found.manifest,
        variables=variables,
        config=found.config,
        no_initial_values=found.not_buildable,
        wrappers=wrapper_prefixes(checkpoint.tensors),
        max_output=default_budget({checkpoint.path, *checkpoint.files}) if max_output == "default" else max_output,
    )
    return Job(checkpoint, found, replace(made, notes=_notes(checkpoint, found, made)))


def _notes(checkpoint: Checkpoint, found: Target, made: Plan) -> tuple[str, ...]:
    """Say what the user should know of either side before anything is done."""
    called = list(dict.fromkeys(str(value) for _, value in checkpoint.opaque))
    shown = ", ".join(called[:3]) + (", ..." if len(called) > 3 else "")
    would_call = f"{checkpoint.path.name}: unpickling would call {shown}; ckptfix does not"
    tied = [
        f"{names} are one tensor in the target, and made in different ways: adapt compares their bytes"
        for names in map(" and ".join, made.tied_apart)
    ]
    return (*checkpoint.remarks, *([would_call] if called else []), *found.notes, *tied)
