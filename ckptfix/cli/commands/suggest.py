"""`ckptfix suggest`: infer the recipe."""

from __future__ import annotations

from pathlib import Path

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo, echo_lines, print_json, show_note, show_progress
from ckptfix.tensors import Shape


@click.command("suggest")
@click.argument("source")
@click.argument("target")
@click.option("-o", "--output", type=click.Path(), help="Write the recipe there.")
@click.option("--force", is_flag=True, help="Replace the recipe where it exists.")
@click.option("--example", help="The same weights already converted: learn from their values.")
@click.option("--parity", metavar="SRC_TARGET", help="SOURCE's architecture: run both, to decide what is ambiguous.")
@options.input_shape
@options.as_json
def command(
    source: str,
    target: str,
    output: str | None,
    force: bool,
    example: str | None,
    parity: str | None,
    input_shape: Shape | None,
    as_json: bool,
) -> int:
    """Infer a recipe that leads from SOURCE to TARGET, from names and shapes.

    Each rule comes with its evidence. What is not certain is listed and left out; exit status 0 only where nothing is.
    """
    from ckptfix import api
    from ckptfix.execute.atomic import refuse_existing, write_whole
    from ckptfix.report import text

    if output is not None:
        refuse_existing(Path(output), replace=force)
    suggestion = api.suggest(source, target, example=example, parity=parity, input_shape=input_shape)
    if output is not None:
        write_whole(Path(output), suggestion.text.encode(), replace=force)
    for note in suggestion.notes:
        show_note(note)
    if as_json:
        print_json(suggestion.to_json())
    elif output is None:
        echo_lines(suggestion.text.splitlines())
        for line in text.show_suggestion(suggestion):
            show_progress(line)
    else:
        echo_lines(text.show_suggestion(suggestion))
        echo(f"wrote {output}")
    if suggestion.ambiguous and example is None and parity is None:
        show_note(
            "what is ambiguous may be decided by --example, the same weights already converted, "
            "or by --parity, where the source's architecture can be built"
        )
    return 0 if suggestion.is_complete else 1
