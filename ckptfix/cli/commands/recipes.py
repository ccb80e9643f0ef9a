"""`ckptfix recipes`: the recipes that ship with the package."""

from __future__ import annotations

from pathlib import Path

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo_lines, print_json, show_progress


@click.group("recipes")
def command() -> None:
    """List, show or copy the recipes that ship with ckptfix. `-r NAME` uses one by its name."""


@command.command("ls")
@options.as_json
def ls(as_json: bool) -> None:
    """List them, each with what it converts."""
    from ckptfix.recipe import load_recipe
    from ckptfix.recipes import list_recipes

    described = {name: load_recipe(_path(name)).description or "" for name in list_recipes()}
    if as_json:
        entries = [{"name": name, "description": text} for name, text in described.items()]
        print_json({"schema_version": 1, "recipes": entries})
        return
    width = max(map(len, described), default=0)
    echo_lines(f"{name:<{width}}  {text}" for name, text in described.items())


@command.command("show")
@click.argument("name")
def show(name: str) -> None:
    """Print the recipe NAME."""
    echo_lines(_path(name).read_text(encoding="utf-8").splitlines())


@command.command("cp")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
def cp(name: str, file: Path) -> None:
    """Copy the recipe NAME to FILE, to be changed there. An existing file is never replaced."""
    from ckptfix.errors import OutputExists, WriteFailed

    data = _path(name).read_bytes()
    try:
        with file.open("xb") as out:
            out.write(data)
    except FileExistsError as error:
        raise OutputExists("exists", where=str(file), hint="copy to another file") from error
    except OSError as error:
        raise WriteFailed((error.strerror or str(error)).lower(), where=str(file)) from error
    show_progress(f"wrote {file}")


def _path(name: str) -> Path:
    """Give the file of a recipe by its name. Raises InvalidCall with the nearest names."""
    from ckptfix.recipes import recipe_path

    return recipe_path(name)
