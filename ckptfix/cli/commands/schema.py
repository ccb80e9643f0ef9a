"""`ckptfix schema`: the JSON Schema of a document."""

from __future__ import annotations

from typing import Any, Literal

import click

from ckptfix.cli.console import print_json


@click.command("schema", short_help="Print the JSON Schema of a document.")
@click.argument("document", type=click.Choice(["recipe", "report", "plan", "step"]))
@click.option("--json", is_flag=True, hidden=True, expose_value=False)
def command(document: Literal["recipe", "report", "plan", "step"]) -> None:
    """Print the JSON Schema of a recipe, of `check --json`, of `plan --json`, or of a pipeline step."""
    print_json(schema(document))


def schema(document: Literal["recipe", "report", "plan", "step"]) -> dict[str, Any]:
    """Give the JSON Schema of a document."""
    from pydantic import TypeAdapter

    match document:
        case "recipe":
            from ckptfix.recipe import recipe_model

            return recipe_model().model_json_schema()
        case "report":
            from ckptfix.planning.report import ReportDocument

            return dict(TypeAdapter(ReportDocument).json_schema())
        case "plan":
            from ckptfix.planning.report import PlanDocument

            return dict(TypeAdapter(PlanDocument).json_schema())
        case "step":
            from ckptfix.pipeline import Step

            return dict(Step.model_json_schema())
