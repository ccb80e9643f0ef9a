"""The verbs. Each is the twin of a command; files and URIs go in, frozen results come out, nothing is printed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from ckptfix.errors import InvalidCall
from ckptfix.execute.write import Progress
from ckptfix.job import Source, open, prepare_job, target  # noqa: A004
from ckptfix.output import Adapted, plan_output, write_output
from ckptfix.tensors import DType, Shape

if TYPE_CHECKING:
    from torch.nn import Module

    from ckptfix.inference.link import Evidence
    from ckptfix.inference.suggestion import Suggestion
    from ckptfix.job import Architecture, RecipeLike
    from ckptfix.keys import VarValue
    from ckptfix.planning import Plan, Report
    from ckptfix.planning.invert import Inversion
    from ckptfix.proof.training.finetune import Progress as TrainingProgress
    from ckptfix.proof.training.report import FinetuneReport
    from ckptfix.proof.verify import Verification
    from ckptfix.targets.base import Target


__all__ = [
    "account",
    "adapt",
    "check",
    "finetune",
    "invert",
    "load_into",
    "open",
    "plan",
    "suggest",
    "target",
    "verify",
]


def plan(
    source: Source,
    architecture: Architecture,
    recipe: RecipeLike = None,
    *,
    variables: Mapping[str, VarValue] | None = None,
    max_output: int | None = None,
) -> Plan:
    """Plan an adaptation without reading a tensor. Faults of the recipe are in `Plan.errors`.

    `max_output` bounds the bytes that are made; the default is far above what a source of its size is meant to give.
    """
    budget: int | Literal["default"] = "default" if max_output is None else max_output
    return prepare_job(source, architecture, recipe, variables, max_output=budget).plan


def check(
    source: Source,
    architecture: Architecture,
    recipe: RecipeLike = None,
    *,
    variables: Mapping[str, VarValue] | None = None,
) -> Report:
    """Account for every tensor of both sides, without reading one."""
    return plan(source, architecture, recipe, variables=variables).report()


def account(out: Source, architecture: Architecture) -> Report:
    """Account for a written checkpoint: what its receipt calls filled is filled, the rest is loaded."""
    from ckptfix.execute.receipt import read_receipt

    checkpoint = open(out)
    receipt = read_receipt(checkpoint)
    return plan(checkpoint, architecture).report(also_filled=receipt.filled if receipt else ())


def invert(
    recipe: RecipeLike,
    source: Source,
    architecture: Architecture,
    *,
    variables: Mapping[str, VarValue] | None = None,
) -> Inversion:
    """Turn a recipe round: its inverse leads from the architecture's layout back to the source's.

    Raises PlanErrors or its one part for a recipe that does not apply, and what opening either side raises.
    """
    from ckptfix.planning.invert import invert_plan

    job = prepare_job(source, architecture, recipe, variables)
    job.plan.raise_for_errors()
    return invert_plan(job.plan)


def suggest(
    source: Source,
    architecture: Architecture,
    *,
    example: Source | None = None,
    parity: Architecture | None = None,
    input_shape: Shape | None = None,
    without: Collection[Evidence] = (),
) -> Suggestion:
    """Infer the recipe that leads from a checkpoint to an architecture.

    From names and shapes, and values where these leave norms open, or, with an `example` that holds the same weights
    already converted, from its values. With `parity`, the source's own architecture, what names and shapes leave
    ambiguous is decided by running both models on an input of `input_shape`, batch included. `without` names evidence
    that is left aside. What is not certain is in `ambiguous` and `unresolved`, never in the recipe. Raises InvalidCall,
    TargetBuildError, and what opening or reading either side raises.
    """
    if example is not None and parity is not None:
        raise InvalidCall("an example and parity at once", hint="give --example or --parity, not both")
    if input_shape is not None and parity is None:
        raise InvalidCall("nothing is run that takes an input", hint="--input is for --parity: give that as well")
    checkpoint, found = open(source), target(architecture)
    description = f"{checkpoint.path.name} to {found.text}"
    remarks = checkpoint.remarks
    if example is not None:
        from ckptfix.inference.example.recipe import suggest_by_example

        converted = open(example)
        remarks += converted.remarks
        made = suggest_by_example(checkpoint, converted, found.manifest, description)
    elif parity is not None:
        from ckptfix.inference.behaviour import suggest_by_behaviour

        made = suggest_by_behaviour(checkpoint, target(parity), found, description, input_shape, without)
    else:
        from ckptfix.inference.suggestion import suggest_for

        made = suggest_for(checkpoint, found.manifest, description, without)
    return replace(made, notes=(*remarks, *made.notes))


def adapt(
    source: Source,
    architecture: Architecture,
    out: str | Path,
    recipe: RecipeLike = None,
    *,
    variables: Mapping[str, VarValue] | None = None,
    dtype: DType | None = None,
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
    """Write the adapted checkpoint to `out`: a `.safetensors` or `.pth` file, `DIR/`, or a folder `x.dcp`.

    `DIR/` is a folder of safetensors as transformers reads it, `x.dcp` one of torch.distributed. A `Path` has no slash
    at its end: it stands for `DIR/` where it is a folder already, else write `f"{path}/"`. `max_shard_size`
    bounds the files in bytes: what does not fit into one is written as shards with an index.

    Nothing is written unless the plan is complete; with `gaps="write"` the tensors that it does provide are.
    `also` names what goes along in a `.pth`, at its place in the source: `optimizer`, on whose moments the rules are
    replayed, or the path of another state dict, such as an average of the weights. `sync` waits until the disk has
    the output. `memory` and `max_output` are bounds in bytes: for what writing takes (256 MiB unasked, and on top what
    a tensor takes that must be computed as a whole; none below 48 MB and 2.5 KB a tensor is taken), and for the output,
    which has one by the source's size unasked.
    Raises PlanErrors or its one part, IncompletePlan, OutputExists, WriteFailed, and what reading raises.
    """
    job = plan_output(
        source,
        architecture,
        out,
        recipe,
        variables=variables,
        dtype=dtype,
        existing=existing,
        max_output=max_output,
        max_shard_size=max_shard_size,
    )
    return write_output(
        job,
        out,
        gaps=gaps,
        existing=existing,
        digests=digests,
        also=also,
        sync=sync,
        memory=memory,
        max_output=max_output,
        max_shard_size=max_shard_size,
        progress=progress,
    )


def load_into(
    module: Module,
    source: Source,
    recipe: RecipeLike = None,
    *,
    variables: Mapping[str, VarValue] | None = None,
    recipe_out: str | Path | None = None,
    existing: Literal["refuse", "replace"] = "refuse",
) -> Report:
    """Load a checkpoint into a live module; the honest `load_state_dict(torch.load(path), strict=False)`.

    `recipe="auto"` infers the recipe, and writes it to `recipe_out` where that is given; `existing` is about that file.
    Raises IncompletePlan unless every tensor of both sides is accounted for, Unresolved where no recipe is certain,
    PlanErrors for a wrong recipe, OutputExists, TiedConflict, and what reading raises; the module is then unchanged.
    `fill` with `value: target` keeps the module's present value.
    """
    from ckptfix.execute.atomic import refuse_existing, write_whole
    from ckptfix.execute.load import load_state

    if recipe_out is not None:
        if recipe != "auto":
            raise InvalidCall("recipe_out is for a recipe that is inferred", hint="give recipe='auto', or leave it out")
        refuse_existing(Path(recipe_out), replace=existing == "replace", remedy="existing='replace' replaces it")
    live = replace(target(module), build=lambda seed: module)
    if recipe == "auto":
        suggestion = suggest(source, live)
        suggestion.raise_for_doubts()
        recipe = suggestion.recipe
        if recipe_out is not None:
            write_whole(Path(recipe_out), suggestion.text.encode(), replace=existing == "replace")
    job = prepare_job(source, live, recipe, variables)
    job.plan.raise_for_errors()
    job.plan.raise_for_gaps()
    load_state(module, job.plan, job.checkpoint, live)
    return job.plan.report()


def verify(
    out: Source,
    architecture: Architecture,
    *,
    source: Source | None = None,
    recipe: RecipeLike = None,
    variables: Mapping[str, VarValue] | None = None,
    parity: tuple[Source, Architecture] | None = None,
    input_shape: Shape | None = None,
) -> Verification:
    """Prove an adapted checkpoint: values, strict load, forward pass, and parity with (source, its architecture).

    `input_shape` includes the batch: [1, 3, 224, 224]. Failures are in `Verification.problems`; PlanErrors is raised
    for a recipe that does not apply to the source.
    """
    from ckptfix.execute.receipt import read_receipt
    from ckptfix.proof.verify import ParitySource, verify_checkpoint

    found = target(architecture)
    checkpoint = open(out)
    job = prepare_job(source, found, recipe, variables) if source is not None else None
    if job is not None:
        job.plan.raise_for_errors()
        receipt = read_receipt(checkpoint)
        if receipt is not None and receipt.dtype is not None:
            job = replace(job, plan=job.plan.with_dtype(DType(receipt.dtype)))
    return verify_checkpoint(
        checkpoint,
        found,
        plan=job.plan if job else None,
        source=job.checkpoint if job else None,
        parity=ParitySource(open(parity[0]), target(parity[1])) if parity else None,
        input_shape=input_shape,
    )


def finetune(
    out: Source,
    architecture: Architecture,
    data: str,
    policies: Sequence[str] = ("frozen", "unfrozen", "scratch"),
    *,
    seeds: int = 1,
    epochs: int = 10,
    batch_size: int = 16,
    lr: float | None = None,
    per_class: int = 10,
    device: str | None = None,
    input_shape: Shape | None = None,
    progress: TrainingProgress | None = None,
) -> FinetuneReport:
    """Train a checkpoint for a few epochs under each policy and compare.

    `input_shape` is that of one image, [channels, height, width], or of a batch of them; the target's own is the
    default. `per_class` images of each class are trained on. Raises InvalidCall, MissingDependency, and
    VerificationFailed where the checkpoint does not load strictly; failures of the training are in `problems`.
    """
    import torch

    from ckptfix.execute.receipt import read_receipt
    from ckptfix.proof.data.load import load_data
    from ckptfix.proof.reload import reload
    from ckptfix.proof.training.finetune import finetune as train
    from ckptfix.proof.training.forward import output_width

    checkpoint, found = open(out), target(architecture)
    channels, height, width = _image_shape(input_shape, found)
    receipt = read_receipt(checkpoint)
    model = found.must_build(0)
    loaded = load_data(
        data,
        channels=channels,
        size=(height, width),
        classes=output_width(model, torch.zeros(1, channels, height, width)),
        train_per_class=per_class,
    )
    return train(
        found.must_build,
        reload(checkpoint).tensors,
        loaded,
        policies,
        filled=receipt.filled if receipt else None,
        seeds=range(seeds),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=device,
        progress=progress,
    )


def _image_shape(asked: Shape | None, found: Target) -> Shape:
    shape = asked or found.input_shape
    if shape is None:
        raise InvalidCall("the size of an input image is unknown", where=found.text, hint="give --input 3,64,64")
    if len(shape) not in (3, 4) or 0 in shape:
        raise InvalidCall(f"{list(shape)} is no image", hint="--input takes channels,height,width")
    return shape[-3:]
