"""`ckptfix verify`: prove that an adapted checkpoint holds what it should, loads and runs."""

from __future__ import annotations

from typing import Any

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo_lines, print_json, show_note
from ckptfix.errors import InvalidCall, VerificationFailed
from ckptfix.tensors import Shape


@click.command("verify")
@click.argument("output")
@click.argument("target")
@click.option("--source", help="Compute every tensor again from this checkpoint, and compare.")
@options.recipe
@options.variables
@click.option("--parity", nargs=2, metavar="SRC SRC_TARGET", help="Compare outputs with the model converted from.")
@options.input_shape
@options.as_json
def command(
    output: str,
    target: str,
    source: str | None,
    recipe: str | None,
    variables: tuple[tuple[str, Any], ...],
    parity: tuple[str, str] | None,
    input_shape: Shape | None,
    as_json: bool,
) -> int:
    """Prove OUTPUT against TARGET: its values, a strict load, a finite forward pass.

    Without --source the values are held against the digests of the file's own receipt. Where there are none, or no
    input is known to run, the last line says what was not tried.

    Exit status: 0 where nothing that was tried failed, 1 where something did.
    """
    from ckptfix import api
    from ckptfix.report import text

    if recipe and not source:
        raise InvalidCall("-r needs the checkpoint that it was applied to", hint="add --source")
    architecture = api.target(target)
    for note in architecture.notes:
        show_note(note)
    found = api.verify(
        output,
        architecture,
        source=source,
        recipe=recipe,
        variables=dict(variables),
        parity=parity,
        input_shape=input_shape,
    )
    for note in found.remarks:
        show_note(note)
    document = found.to_json()
    if as_json:
        print_json(document)
    else:
        echo_lines(text.show_proofs({**document, "notes": list(found.notes)}))
    return 0 if found.ok else VerificationFailed.exit_code
