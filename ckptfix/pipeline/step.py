"""The document that describes a step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ckptfix.document import Document, read_document, validate
from ckptfix.errors import InvalidCall
from ckptfix.recipes import list_recipes, recipe_path
from ckptfix.rules.cast import FloatDType
from ckptfix.targets import is_target
from ckptfix.targets.base import TargetURI


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerifyCheck(_Part):
    """Prove the values, a strict load and a forward pass."""

    input: tuple[int, ...] | None = Field(default=None, description="Shape of the input with its batch.")


class FinetuneCheck(_Part):
    """Train briefly and compare."""

    data: str = Field(description="digits, mnist5k, folder:DIR or py:module:factory.")
    policies: tuple[str, ...] = Field(default=("frozen", "scratch"), min_length=1)
    threshold: float | dict[str, float] = Field(
        description="Least accuracy, 0 to 1: of every policy but scratch, or by policy."
    )
    seeds: int = Field(default=1, ge=1)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=16, ge=1)
    per_class: int = Field(default=10, ge=1, description="Training images of a class.")
    input: tuple[int, ...] | None = Field(default=None, description="Shape of an image: [channels, height, width].")
    device: str | None = Field(default=None, description="cuda or cpu; CUDA where there is one.")

    @model_validator(mode="after")
    def _check_thresholds(self) -> FinetuneCheck:
        unknown = set(self.least_accuracy()) - set(self.policies)
        if unknown:
            raise ValueError(f"threshold: no policy '{unknown.pop()}'; there are {', '.join(self.policies)}")
        return self

    def least_accuracy(self) -> dict[str, float]:
        """Give the threshold of each policy that has one."""
        if isinstance(self.threshold, dict):
            return self.threshold
        return dict.fromkeys((policy for policy in self.policies if policy != "scratch"), self.threshold)


class Checks(_Part):
    """What the prepared checkpoint has to pass. That every tensor is accounted for is always checked."""

    check: Literal[True] = Field(default=True, description="Every tensor accounted for; cannot be turned off.")
    verify: VerifyCheck | bool = Field(default=True, description="Values, strict load, forward pass.")
    finetune: FinetuneCheck | None = Field(default=None, description="A short training with a threshold.")


class Step(_Part):
    """A checkpoint to prepare. Paths are relative to the document; a folder is for the output of one step."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="ckptfix step")

    ckptfix: Literal[1] = Field(default=1, description="Version of the step document.")
    source: str = Field(description="The checkpoint, FILE or FILE#PATH.")
    target: str = Field(description="The architecture: a target URI, a lockfile or a checkpoint.")
    recipe: str | dict[str, Any] | None = Field(
        default=None, description="A recipe's path, a shipped one's name, or the recipe itself."
    )
    vars: dict[str, Any] = Field(default_factory=dict, description="Variables of the recipe.")
    dtype: FloatDType | None = Field(default=None, description="Cast every floating tensor.")
    output: str = Field(description="The file to write; manifest.json goes beside it, last.")
    checks: Checks = Field(default_factory=Checks)
    report: str | None = Field(default=None, description="Folder of the reports.")

    def resolve_paths(self, folder: Path) -> Step:
        """Make every path absolute that the document gives relative to its own folder."""

        def absolute(path: str) -> str:
            return str(folder / path)

        return self.model_copy(
            update={
                "source": absolute(self.source),
                "target": _resolve_target(self.target, folder),
                "recipe": _resolve_recipe(self.recipe, folder) if isinstance(self.recipe, str) else self.recipe,
                "output": absolute(self.output),
                "report": absolute(self.report) if self.report else None,
            }
        )


def _resolve_recipe(recipe: str, folder: Path) -> str:
    """Give the file in the folder, or else the shipped recipe of that name."""
    path = folder / recipe
    return str(recipe_path(recipe) if recipe in list_recipes() and not path.exists() else path)


def _resolve_target(target: str, folder: Path) -> str:
    if not is_target(target):
        return str(folder / target)
    uri = TargetURI.parse(target)
    if uri.scheme == "shapes" or (uri.scheme == "py" and uri.body.partition(":")[0].endswith(".py")):
        return f"{uri.scheme}:{folder / target.partition(':')[2]}"
    return target


def read_step(
    step: Step | str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> tuple[Step, Path]:
    """Read a step, from a file or from plain values, and the folder that its paths are relative to.

    `overrides` map a dotted place (`checks.finetune.epochs`) to a value. Raises SourceNotFound, RecipeSyntaxError
    or RecipeSchemaError.
    """
    if isinstance(step, Step):
        return step, Path.cwd()
    if isinstance(step, str | Path):
        document, folder = read_document(Path(step)), Path(step).resolve().parent
    else:
        document, folder = Document("step", dict(step)), Path.cwd()
    for place, value in (overrides or {}).items():
        document = Document(document.file, _set(document.value, place.split("."), value), document.lines)
    return validate(Step, document), folder


def _set(value: Any, place: list[str], new: Any) -> Any:  # a document of any form
    if not place:
        return new
    if value is not None and not isinstance(value, dict):
        raise InvalidCall(f"--set: '{place[0]}' lies inside a value that is no mapping")
    return {**(value or {}), place[0]: _set((value or {}).get(place[0]), place[1:], new)}
