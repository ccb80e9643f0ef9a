"""`ckptfix explain`: what an op does, or what an error code means."""

from __future__ import annotations

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo_lines, print_json


@click.command("explain")
@click.argument("subject", metavar="OP|CODE")
@options.as_json
def command(subject: str, as_json: bool) -> None:
    """Explain an op of the recipe language, as in `explain rename`, or an error code, as in `explain CKF204`."""
    from ckptfix.report.explain import explain

    lines = explain(subject)
    if as_json:
        print_json({"schema_version": 1, "subject": subject, "text": "\n".join(lines)})
    else:
        echo_lines(lines)
