"""`ckptfix adapt`: write the checkpoint that loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ckptfix.cli import options
from ckptfix.cli.console import (
    echo,
    echo_lines,
    print_json,
    progress_bar,
    show_error,
    show_note,
    show_progress,
)
from ckptfix.counts import count
from ckptfix.errors import CkptfixError, IncompletePlan, InvalidCall
from ckptfix.tensors import DType

if TYPE_CHECKING:
    from ckptfix.inference.suggestion import Suggestion
    from ckptfix.output import Adapted


@click.command("adapt")
@click.argument("source")
@click.argument("target")
@options.recipe
@click.option(
    "--suggest", is_flag=True, help="Infer the recipe, and write it beside the output; only if it is certain."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="A .safetensors, .pth, .pt or .bin file, DIR/ or DIR.dcp."
)
@options.variables
@click.option("--dtype", type=options.DTypeType(), help="Cast every floating tensor.")
@click.option("--force", is_flag=True, help="Replace the output where it exists.")
@click.option("--partial", is_flag=True, help="Write what the plan provides, list what is missing, exit 1.")
@click.option("--no-digest", is_flag=True, help="Leave the digests out of the receipt.")
@click.option("--also", multiple=True, metavar="optimizer|PATH", help="Carry this along; a .pth holds it.")
@click.option("--no-fsync", is_flag=True, help="Do not wait until the disk has the output.")
@click.option(
    "--memory",
    type=options.Size(),
    help="Take no more memory than this; 256 MiB, and what a tensor takes that is computed as a whole.",
)
@click.option(
    "--max-output",
    type=options.Size(),
    help="Refuse an output that is larger; as a rule 16 GiB, or 8 times the source.",
)
@click.option("--max-shard-size", type=options.Size(), help="Write shards of at most this size, and their index.")
@options.as_json
def command(
    source: str,
    target: str,
    recipe: str | None,
    suggest: bool,
    output: str,
    variables: tuple[tuple[str, Any], ...],
    dtype: DType | None,
    force: bool,
    partial: bool,
    no_digest: bool,
    no_fsync: bool,
    also: tuple[str, ...],
    memory: int | None,
    max_output: int | None,
    max_shard_size: int | None,
    as_json: bool,
) -> int:
    """Rewrite SOURCE by a recipe so that TARGET loads it with strict=True.

    Nothing is written unless every tensor of both sides is accounted for. Without a recipe nothing changes but the
    format.
    """
    from ckptfix.execute.atomic import write_whole
    from ckptfix.output import plan_output, write_output
    from ckptfix.report import text

    existing: Literal["replace", "refuse"] = "replace" if force else "refuse"
    if suggest and recipe:
        raise InvalidCall("--suggest infers the recipe that -r gives", hint="leave one of them out")
    suggestion = _infer(source, target, output, max_shard_size, replace=force) if suggest else None
    used = suggestion.recipe if suggestion else recipe
    job = plan_output(
        source,
        target,
        output,
        used,
        variables=dict(variables),
        dtype=dtype,
        existing=existing,
        max_output=max_output,
        max_shard_size=max_shard_size,
    )
    said = suggestion.notes if suggestion else ()
    for note in job.plan.notes:
        if note not in said:
            show_note(note)
    report = job.plan.report()
    try:
        with progress_bar("adapt") as update:
            adapted = write_output(
                job,
                output,
                gaps="write" if partial else "refuse",
                existing=existing,
                digests="none" if no_digest else "blake3",
                also=also,
                sync=not no_fsync,
                memory=memory,
                max_output=max_output,
                max_shard_size=max_shard_size,
                progress=update,
            )
    except CkptfixError as error:
        if as_json:
            known = isinstance(error, IncompletePlan) or bool(job.plan.errors)
            errors = [*report.to_json()["errors"], *([] if known else [error.to_json()])]
            print_json({**report.to_json(), "errors": errors, "written": None})
        elif isinstance(error, IncompletePlan):
            for line in text.show_report(report):
                show_progress(line)
        show_error(error)
        return error.exit_code
    if suggestion:
        write_whole(_recipe_path(Path(output)), suggestion.text.encode(), replace=force)
    if as_json:
        nonfinite = {"read": adapted.read.to_json(), "made": adapted.made.to_json()}
        files = [str(file) for file in adapted.files]
        written = {"written": str(adapted.path), "files": files, "taken_up": adapted.taken_up, "cloned": adapted.cloned}
        print_json({**report.to_json(), **written, "nonfinite": nonfinite, **_companions(adapted)})
    else:
        echo_lines(text.show_report(report))
        if adapted.read or adapted.made:
            echo(f"not finite: {adapted.read} in what was computed with, {adapted.made} in what was made of it")
        if adapted.companions:
            echo_lines(text.show_companions(adapted.companions))
        several = f"{len(adapted.files)} files, " if len(adapted.files) > 1 else ""
        several += f"{adapted.taken_up} of them finished by an interrupted run, " if adapted.taken_up else ""
        shared = f", {text.size(adapted.cloned)} of it shared with the source" if adapted.cloned else ""
        nbytes = sum(file.stat().st_size for file in adapted.files)
        echo(f"wrote {adapted.path} ({several}{text.size(nbytes)}{shared})")
        if suggestion:
            echo(f"wrote {_recipe_path(Path(output))} ({count(suggestion.rules, 'rule')})")
    return job.plan.exit_code


def _infer(source: str, target: str, output: str, max_shard_size: int | None, *, replace: bool) -> Suggestion:
    """Infer the recipe before anything is written. Raises Unresolved, and OutputExists for either file."""
    from ckptfix import api
    from ckptfix.execute.atomic import refuse_existing
    from ckptfix.execute.destination import Destination

    Destination.of(output, max_shard_size).refuse_taken(replace=replace)
    refuse_existing(_recipe_path(Path(output)), replace=replace)
    suggestion = api.suggest(source, target)
    for note in suggestion.notes:
        show_note(note)
    suggestion.raise_for_doubts()
    return suggestion


def _recipe_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.recipe.yaml")


def _companions(adapted: Adapted) -> dict[str, object]:
    """Give what the document says of what went along."""
    found = adapted.companions
    if found is None:
        return {}
    return {"also": [carried.to_json() for carried in found.carried], "left_out": list(found.left_out)}
