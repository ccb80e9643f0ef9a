"""Find the subcommand, run it, and turn every outcome into an exit status."""

from __future__ import annotations

from contextlib import redirect_stdout
from copy import copy
from importlib import import_module
from io import StringIO
from typing import Any

import click
from click.exceptions import NoSuchCommand

from ckptfix._version import __version__
from ckptfix.cli import INTERRUPTED
from ckptfix.cli.commands import COMMANDS
from ckptfix.cli.console import echo_lines, keep_stdout, print_json, show_error, show_progress
from ckptfix.errors import CkptfixError


class Commands(click.Group):
    """The subcommands of `ckptfix.cli.commands`; a module is imported when its command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. Raises NoSuchCommand with the nearest names, which click looks up in its own table."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = copy(import_module(f"ckptfix.cli.commands.{cmd_name}").command)
        command.short_help = COMMANDS[cmd_name]
        command.callback = keep_stdout()(command.callback) if command.callback else None
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ckptfix")
def cli() -> None:
    """Adapt a checkpoint to the architecture you have, and prove that it loads.

    \b
    ckptfix inspect checkpoint.pth
    ckptfix check   checkpoint.pth "torchvision:mobilenet_v2?num_classes=5"
    ckptfix adapt   checkpoint.pth "torchvision:mobilenet_v2?num_classes=5" -r recipe.yaml -o adapted.safetensors
    ckptfix verify  adapted.safetensors "torchvision:mobilenet_v2?num_classes=5"

    Exit status: 0 done, 1 incompatible or a proof failed, 2 the call or recipe is wrong, 3 the file is refused,
    4 reading or writing failed, 130 interrupted.
    """


def run(args: list[str]) -> int:
    """Run the command line and give the exit status."""
    wants_json = "--json" in args
    try:
        # What click itself says, the help and the version, is written as an answer is: the output may be full.
        with keep_stdout(), redirect_stdout(StringIO()) as said:
            status = cli.main(args, prog_name="ckptfix", standalone_mode=False)
        echo_lines(said.getvalue().splitlines())
    except CkptfixError as error:
        if wants_json:
            print_json(_error_document(error))
        show_error(error)
        return error.exit_code
    except click.ClickException as error:
        if wants_json:
            fields = {"code": "CKF200", "where": None, "message": error.format_message(), "hint": None}
            print_json({"schema_version": 1, "error": fields})
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stopped:
        # click ends the line that a terminal began with ^C, then raises Abort of what has interrupted; a set of files
        # says what it has kept.
        if isinstance(stopped, KeyboardInterrupt):
            show_progress("")
        kept = str(stopped.__cause__ or "")
        show_progress(f"interrupted; {kept or 'nothing was left half written'}")
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _error_document(error: CkptfixError) -> dict[str, Any]:
    """Give the `--json` document of a call that came to nothing; `errors` lists the parts of a compound error."""
    parts = {"errors": [part.to_json() for part in error.parts]} if error.parts else {}
    return {"schema_version": 1, "error": error.to_json(), **parts}
