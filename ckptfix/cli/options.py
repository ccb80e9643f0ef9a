"""Options that several subcommands share, and the types of their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ckptfix.tensors import FLOATS, DType, Shape


class Variable(click.ParamType[tuple[str, Any]]):
    """`K=V`, where V is JSON or else text."""

    name = "K=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Split at the first '='."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not (name and equals):
            self.fail(f"'{value}' is not of the form NAME=VALUE", param, ctx)
        try:
            return name, json.loads(text)
        except json.JSONDecodeError:
            return name, text


_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


class Size(click.ParamType[int]):
    """A number of bytes: `512`, `200MB`, `1.5GiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number with an optional unit."""
        if isinstance(value, int):
            return value
        text = value.strip().upper().removesuffix("B")
        digits = text.rstrip("KMGTI")
        try:
            amount = float(digits) * _UNITS[text[len(digits) :].strip()]
            return int(amount) if amount >= 0 else self.fail(f"'{value}' is negative", param, ctx)
        except (ValueError, KeyError, OverflowError):
            self.fail(f"'{value}' is no size (write 512, 200MB or 1.5GiB)", param, ctx)


class ShapeType(click.ParamType[Shape]):
    """Extents with commas between them: `1,3,224,224`."""

    name = "extents"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shape:
        """Read the integers."""
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"'{value}' is no shape (write 1,3,224,224)", param, ctx)
        return tuple(int(part) for part in parts)


class DTypeType(click.ParamType[DType]):
    """A floating dtype, by safetensors' or torch's name."""

    name = "dtype"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DType:
        """Look the name up."""
        dtype = value if isinstance(value, DType) else DType.from_text(value)
        if dtype is None or dtype not in FLOATS:
            known = ", ".join(FLOATS)
            self.fail(f"'{value}' is no floating dtype (write one of {known}, or torch's name, as float16)", param, ctx)
        return dtype


def _json_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Refuse another name than that of a JSON file: the file is replaced unasked, and no checkpoint should be."""
    if value is not None and not value.endswith(".json"):
        raise click.BadParameter(f"'{value}' does not end in .json", ctx, param)
    return None if value is None else Path(value)


json_output = click.option(
    "-o", "--output", type=click.Path(), callback=_json_path, help="Write it to this .json file, replacing it."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
recipe = click.option("-r", "--recipe", type=click.Path(), help="A recipe, YAML or JSON; without one, no rules.")
variables = click.option("--var", "variables", type=Variable(), multiple=True, help="Set a variable of the recipe.")
input_shape = click.option(
    "--input",
    "input_shape",
    type=ShapeType(),
    help="Shape of an input with its batch: 1,3,224,224, or 1,16 for 16 tokens. "
    "The batch may be left out where the target tells the shape of an image, as those of timm do.",
)
