"""`ckptfix schema`: the JSON Schema of a document."""

from __future__ import annotations

from typing import Any, Literal

import click

from ckptfix.cli.console import print_json

Document = Literal["recipe", "report", "plan", "suggestion", "step"]


@click.command("schema")
@click.argument("document", type=click.Choice(["recipe", "report", "plan", "suggestion", "step"]))
@click.option("--json", is_flag=True, hidden=True, expose_value=False)
def command(document: Document) -> None:
    """Print the JSON Schema of a recipe, of what `check`, `plan` or `suggest` prints with `--json`, or of a step."""
    print_json(schema(document))


def schema(document: Document) -> dict[str, Any]:
    """Give the JSON Schema of a document."""
    from pydantic import TypeAdapter

    match document:
        case "recipe":
            from ckptfix.recipe.document import recipe_model

            return recipe_model().model_json_schema()
        case "report":
            from ckptfix.planning.documents import ReportDocument

            return dict(TypeAdapter(ReportDocument).json_schema())
        case "plan":
            from ckptfix.planning.documents import PlanAndWork

            return dict(TypeAdapter(PlanAndWork).json_schema())
        case "suggestion":
            from ckptfix.inference.suggestion import SuggestionDocument

            return dict(TypeAdapter(SuggestionDocument).json_schema())
        case "step":
            from ckptfix.pipeline import Step

            return dict(Step.model_json_schema())
