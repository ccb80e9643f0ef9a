"""`ckptfix invert`: the recipe of the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo_lines, print_json, show_note


@click.command("invert")
@click.argument("recipe", type=click.Path())
@click.argument("source")
@click.argument("target")
@options.variables
@click.option("-o", "--output", type=click.Path(), help="Write the recipe there.")
@options.as_json
def command(
    recipe: str, source: str, target: str, variables: tuple[tuple[str, Any], ...], output: str | None, as_json: bool
) -> int:
    """Derive the recipe that leads from TARGET's layout back to SOURCE's.

    Every rule says whether it is exact, conditional or lossy; a lossy one is listed with its line, never guessed.
    Exit status 1 where one is lossy.
    """
    from ckptfix import api
    from ckptfix.execute.atomic import write_whole

    inversion = api.invert(recipe, source, target, variables=dict(variables))
    if output is not None:
        write_whole(Path(output), inversion.to_text().encode(), replace=False)
    if as_json:
        rules = [
            {"undoes": str(origin), "kind": inverse.kind, "why": inverse.why, "rules": list(inverse.rules)}
            for origin, inverse in inversion.undone
        ]
        print_json({"schema_version": 1, "recipe": inversion.to_values(), "undone": rules})
    elif output is None:
        echo_lines(inversion.to_text().splitlines())
    for origin, inverse in inversion.undone:
        if inverse.kind == "lossy":
            show_note(f"{origin}: lossy: {inverse.why}")
    return 0 if inversion.is_lossless else 1
