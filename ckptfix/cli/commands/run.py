"""`ckptfix run`: prepare a checkpoint as a step of a pipeline."""

from __future__ import annotations

from typing import Any

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo, print_json, progress_bar


@click.command("run")
@click.argument("step", type=click.Path())
@click.option("--set", "overrides", type=options.Variable(), multiple=True, help="Override a field: a.b.c=VALUE.")
@click.option("--force", is_flag=True, help="Replace the output of another step.")
@options.as_json
def command(step: str, overrides: tuple[tuple[str, Any], ...], force: bool, as_json: bool) -> None:
    """Adapt, verify and fine-tune as the document STEP says; do nothing where that is done already.

    Done means that manifest.json, written last, has the fingerprint of the source's content, the recipe, the target's
    shapes and the options.
    """
    from ckptfix.pipeline import prepare

    with progress_bar("fine-tune") as update:
        prepared = prepare(step, overrides=dict(overrides), force=force, progress=update)
    if as_json:
        print_json(prepared.to_json())
    else:
        checks = prepared.manifest["checks"]
        facts = [f"{checks['check']['loaded']} loaded, {checks['check']['filled']} filled"]
        facts += ["verified"] if checks["verify"] else []
        trained = checks["finetune"]["accuracy"] if checks["finetune"] else {}
        facts += [f"{policy} {accuracy:.3f}" for policy, accuracy in trained.items() if accuracy is not None]
        echo(f"{'found' if prepared.cached else 'prepared'} {prepared.output} ({'; '.join(facts)})")
