"""`ckptfix check`: will these weights load?"""

from __future__ import annotations

from typing import Any

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo_lines, print_json, show_error, show_note


@click.command("check")
@click.argument("source")
@click.argument("target")
@options.recipe
@options.variables
@options.as_json
def command(source: str, target: str, recipe: str | None, variables: tuple[tuple[str, Any], ...], as_json: bool) -> int:
    """Report missing, unexpected and mismatched tensors between SOURCE and TARGET. No tensor is read.

    Exit status: 0 where a strict load would succeed with nothing left over, 1 where it would not, 2 where the recipe
    is wrong.
    """
    from ckptfix.job import prepare_job
    from ckptfix.report import text

    job = prepare_job(source, target, recipe, dict(variables), max_output="default")
    for note in job.plan.notes:
        show_note(note)
    report = job.plan.report()
    if as_json:
        print_json(report.to_json())
    else:
        echo_lines(text.show_report(report))
    for error in job.plan.errors:
        show_error(error)
    return job.plan.exit_code
