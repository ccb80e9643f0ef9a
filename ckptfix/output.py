"""The output of a job: whether it may be written, and the writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.counts import count
from ckptfix.errors import InvalidCall, OutputExists, UnsupportedOutput
from ckptfix.execute.destination import Destination
from ckptfix.execute.finite import Count
from ckptfix.execute.moves import move_of
from ckptfix.execute.receipt import Receipt
from ckptfix.execute.workers import MEMORY, least_memory, threads_within
from ckptfix.execute.write import Options, Progress
from ckptfix.execute.write_set import write_alone, write_set
from ckptfix.expr import leaves
from ckptfix.formats import Checkpoint
from ckptfix.job import Job, Source, prepare_job
from ckptfix.tensors import DType

if TYPE_CHECKING:
    from ckptfix.execute.resume import Companions
    from ckptfix.job import Architecture, RecipeLike
    from ckptfix.keys import VarValue
    from ckptfix.planning import Plan


class Adapted(Struct, frozen=True):
    """A written checkpoint: where it is, what it carries, and the account of how it was made."""

    path: Path
    receipt: Receipt
    plan: Plan
    companions: Companions | None = None
    """What went with the weights, where that was asked for."""
    read: Count = field(default_factory=Count)
    """NaN and infinities in the source tensors that were computed with."""
    made: Count = field(default_factory=Count)
    """NaN and infinities in the tensors computed of them."""
    files: tuple[Path, ...] = ()
    """All files of the output; `path` is the one to open."""
    taken_up: int = 0
    """How many of the files an interrupted run had finished."""
    cloned: int = 0
    """Bytes that the output shares with the source, on a file system that can."""

    @property
    def is_complete(self) -> bool:
        """Whether it loads with `strict=True`; only `partial` gives one that does not."""
        return self.plan.is_complete


def plan_output(
    source: Source,
    architecture: Architecture,
    out: str | Path,
    recipe: RecipeLike = None,
    *,
    variables: Mapping[str, VarValue] | None = None,
    dtype: DType | None = None,
    existing: Literal["refuse", "replace"] = "refuse",
    max_output: int | None = None,
    max_shard_size: int | None = None,
) -> Job:
    """The first half of `adapt`: whether `out` may be written, then the plan. Reads no tensor, writes nothing."""
    destination = Destination.of(out, max_shard_size)
    destination.refuse_taken(replace=existing == "replace")
    budget: int | Literal["default"] = "default" if max_output is None else max_output
    job = prepare_job(source, architecture, recipe, variables, max_output=budget)
    for path in destination.replaced():
        refuse_source(path, job.checkpoint)
    return job if dtype is None else replace(job, plan=job.plan.with_dtype(dtype))


def refuse_source(out: Path, checkpoint: Checkpoint) -> None:
    """Raise OutputExists where the output would replace a file that is read."""
    files = {checkpoint.path, *checkpoint.files}
    if out.exists() and any(out.samefile(file) for file in files if file.exists()):
        raise OutputExists("is the source itself", where=str(out), hint="write to another file")


def write_output(
    job: Job,
    out: str | Path,
    *,
    gaps: Literal["refuse", "write"] = "refuse",
    existing: Literal["refuse", "replace"] = "refuse",
    digests: Literal["blake3", "none"] = "blake3",
    also: Sequence[str] = (),
    sync: bool = True,
    memory: int | None = None,
    max_output: int | None = None,
    max_shard_size: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Adapted:
    """The second half of `adapt`: hold the plan to its conditions, and write."""
    job.plan.raise_for_errors()
    if gaps == "refuse":
        job.plan.raise_for_gaps()
    _check_budget(job, memory, max_output)
    companions = _carry(job, also) if also else None
    destination = Destination.of(out, max_shard_size)
    parts = destination.parts({key: row.expr.spec for key, row in job.plan.outputs.items()})
    taken_up = 0
    options = Options(digests == "blake3", sync, threads_within(MEMORY if memory is None else memory))
    if parts is None:
        written = write_alone(
            job.plan,
            job.checkpoint,
            job.target,
            destination,
            replace=existing == "replace",
            options=options,
            companions=companions,
            progress=progress,
        )
    else:
        if companions is not None:
            raise UnsupportedOutput("several files hold one state dict and nothing beside it", hint="write one .pth")
        if digests == "none":
            raise InvalidCall("several files need digests: these tell which belong together", hint="drop --no-digest")
        for part in parts:
            refuse_source(destination.last.with_name(part.name), job.checkpoint)
        written, taken_up = write_set(
            job.plan,
            job.checkpoint,
            job.target,
            destination,
            parts,
            replace=existing == "replace",
            options=options,
            progress=progress,
        )
    last = destination.path if parts is None else destination.last
    return Adapted(
        path=last.parent if destination.kind == "distributed" else last,
        receipt=written.receipt,
        plan=job.plan,
        companions=companions,
        read=written.read,
        made=written.made,
        files=(*(last.with_name(part.name) for part in parts or ()), last),
        taken_up=taken_up,
        cloned=written.cloned,
    )


def _carry(job: Job, also: Sequence[str]) -> Companions:
    """Plan what goes with the weights; another state dict by the same recipe, less the prefixes that it lacks."""
    from ckptfix.execute.resume import carry
    from ckptfix.planning import make_plan

    def plan_for(other: Checkpoint) -> Plan:
        recipe = job.plan.recipe
        strip = tuple(prefix for prefix in recipe.source.strip if any(key.startswith(prefix) for key in other.manifest))
        return make_plan(
            replace(recipe, source=replace(recipe.source, strip=strip)),
            other.manifest,
            job.target.manifest,
            variables=job.plan.values,
            no_initial_values=job.target.not_buildable,
        )

    return carry(job.checkpoint, job.plan, also, plan_for)


def _check_budget(job: Job, memory: int | None, max_output: int | None) -> None:
    """Hold the plan to its bounds before anything is read."""
    from ckptfix.planning import default_budget

    outputs = {key: row.expr for key, row in job.plan.outputs.items()}
    total = sum(expr.spec.nbytes for expr in outputs.values())
    if max_output is not None and total > max_output:
        raise InvalidCall(f"the output takes {total} bytes, --max-output allows {max_output}")
    if max_output is None and total > (allowed := default_budget({job.checkpoint.path, *job.checkpoint.files})):
        raise InvalidCall(
            f"the output takes {total:,} bytes, a source of this size may give {allowed:,}",
            hint="--max-output SIZE allows more",
        )
    if memory is None:
        return
    if memory < (least := least_memory(len(outputs))):
        raise InvalidCall(
            f"to write {count(len(outputs), 'tensor')} takes up to {least} bytes, --memory allows {memory}",
            hint=f"give --memory {-(-least // 10**6)}MB or more",
        )
    for key, expr in outputs.items():
        needed = expr.spec.nbytes + sum(leaf.spec.nbytes for leaf in leaves(expr))
        if needed > memory and move_of(expr, job.checkpoint.tensors) is None:
            raise InvalidCall(
                f"'{key}' is computed as a whole, which takes {needed} bytes, --memory allows {memory}",
                hint="what is only moved or cast takes no more than is allowed",
            )
