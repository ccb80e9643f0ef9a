"""`ckptfix finetune`: does the adapted checkpoint learn, and is what is frozen still?"""

from __future__ import annotations

from pathlib import Path

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo, echo_lines, print_json, progress_bar, show_note
from ckptfix.errors import TrainingFailed
from ckptfix.tensors import Shape


@click.command("finetune")
@click.argument("output")
@click.argument("target")
@click.option("--data", required=True, help="digits, mnist5k, folder:DIR or py:module:factory.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=("frozen", "unfrozen", "scratch"),
    show_default=True,
    help="frozen, partial:PATTERN (modules to freeze), unfrozen or scratch; may be repeated.",
)
@click.option("--seeds", default=1, type=click.IntRange(1, 100), show_default=True, help="Runs of each policy.")
@click.option("--epochs", default=10, type=click.IntRange(1), show_default=True)
@click.option("--batch-size", default=16, type=click.IntRange(1), show_default=True)
@click.option("--per-class", default=10, type=click.IntRange(1), show_default=True, help="Training images of a class.")
@click.option("--lr", type=click.FloatRange(0), help="One learning rate for all; else a rate for each part.")
@click.option("--device", help="cuda, cuda:1 or cpu; CUDA where there is one.")
@options.input_shape
@click.option("--report", "directory", type=click.Path(), help="Write measurements, curves and a page there.")
@options.as_json
def command(
    output: str,
    target: str,
    data: str,
    policies: tuple[str, ...],
    seeds: int,
    epochs: int,
    batch_size: int,
    per_class: int,
    lr: float | None,
    device: str | None,
    input_shape: Shape | None,
    directory: str | None,
    as_json: bool,
) -> int:
    """Train OUTPUT in TARGET for a few epochs under each policy, and compare.

    Every policy sees the same data in the same order from the same seed. Exit status 1 where a loss is not finite or
    did not fall, or where anything frozen moved.
    """
    from ckptfix import api
    from ckptfix.report import text

    architecture = api.target(target)
    for note in architecture.notes:
        show_note(note)
    with progress_bar("finetune") as update:
        report = api.finetune(
            output,
            architecture,
            data,
            policies,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            per_class=per_class,
            lr=lr,
            device=device,
            input_shape=input_shape,
            progress=update,
        )
    if directory is not None:
        from ckptfix.report.finetune import write_finetune

        write_finetune(report, directory, check=api.account(output, architecture).to_json(), verify=None)
    document = report.to_json()
    if as_json:
        print_json(document)
    else:
        echo_lines(text.show_finetune(document))
        if directory is not None:
            echo(f"wrote {Path(directory) / 'report.html'}")
    return 0 if report.ok else TrainingFailed.exit_code
