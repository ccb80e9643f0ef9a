"""`ckptfix plan`: from what, and by which line, each tensor would be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo, echo_lines, print_json, show_error, show_note
from ckptfix.errors import InvalidCall


@click.command("plan")
@click.argument("source")
@click.argument("target")
@options.recipe
@options.variables
@click.option("--trace", metavar="KEY", help="Follow one key of the target back through every rule.")
@click.option(
    "--max-output",
    type=options.Size(),
    help="Refuse an output that is larger; as a rule 16 GiB, or 8 times the source.",
)
@options.json_output
@options.as_json
def command(
    source: str,
    target: str,
    recipe: str | None,
    variables: tuple[tuple[str, Any], ...],
    trace: str | None,
    max_output: int | None,
    output: Path | None,
    as_json: bool,
) -> int:
    """Show how each tensor of TARGET would be made of SOURCE. No tensor is read, nothing else is written."""
    from ckptfix.execute.atomic import write_whole
    from ckptfix.execute.work import work_of
    from ckptfix.job import prepare_job
    from ckptfix.keys import nearest_keys
    from ckptfix.report import text

    budget: int | Literal["default"] = "default" if max_output is None else max_output
    job = prepare_job(source, target, recipe, dict(variables), max_output=budget)
    plan = job.plan
    for note in plan.notes:
        show_note(note)
    if trace is not None and trace not in plan.rows:
        near = nearest_keys(trace, plan.rows)
        raise InvalidCall(f"the plan makes no '{trace}'", hint=f"nearest: {', '.join(near)}" if near else None)
    # A plan with faults is never carried out.
    outputs = {} if plan.errors else {key: row.expr for key, row in plan.outputs.items()}
    work = work_of(outputs, job.checkpoint.tensors)
    document = {**plan.to_json(), "work": work.to_json()}
    if output is not None:
        write_whole(output, f"{json.dumps(document, indent=1)}\n".encode(), replace=True)
    if as_json:
        lines = {"trace": plan.trace(trace)} if trace is not None else {}
        print_json({**document, **lines})
    elif trace is not None:
        echo_lines(plan.trace(trace))
    else:
        echo_lines(text.show_plan(plan))
        if outputs:
            echo(text.show_work(work))
    for error in plan.errors:
        show_error(error)
    return plan.exit_code
