"""Turn a recipe round, rule by rule, last first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from msgspec import Struct

from ckptfix.edits import Inverse, Scope
from ckptfix.errors import Origin
from ckptfix.planning.plan import Plan, walk
from ckptfix.planning.table import read_table, strip_prefixes


class Inversion(Struct, frozen=True):
    """The way back: what undoes each rule, in the order to apply, with the place of the rule that it undoes."""

    description: str
    undone: tuple[tuple[Origin, Inverse], ...]

    @property
    def is_lossless(self) -> bool:
        """Whether the way back gives every byte that the way there used, as far as its conditions hold."""
        return not any(inverse.kind == "lossy" for _, inverse in self.undone)

    def to_values(self) -> dict[str, object]:
        """Give the recipe as plain values."""
        rules = [dict(rule) for _, inverse in self.undone for rule in inverse.rules]
        return {"ckptfix": 1, "description": self.description, "rules": rules}

    def to_text(self) -> str:
        """Write the recipe; a comment before each rule says what it undoes, and what cannot be undone."""
        lines = ["ckptfix: 1", f"description: {json.dumps(self.description)}", "rules:"]
        for origin, inverse in self.undone:
            because = f": {inverse.why}" if inverse.why else ""
            lines.append(f"  # {origin}: {inverse.kind}{because}")
            lines += [f"  - {_flow(rule)}" for rule in inverse.rules]
        if not any(inverse.rules for _, inverse in self.undone):
            lines[2] = "rules: []"
        return "\n".join(lines) + "\n"


def invert_plan(plan: Plan) -> Inversion:
    """Turn the recipe of a plan without faults round."""
    return Inversion(f"the way back from: {plan.recipe.description or plan.recipe.file}", tuple(_undo(plan)))


def _undo(plan: Plan) -> Iterator[tuple[Origin, Inverse]]:
    recipe = plan.recipe
    table, _ = strip_prefixes(read_table(plan.have), recipe.source.strip, recipe.source_origin)
    for walked in reversed(list(walk(recipe, table, Scope({}, plan.want, plan.values)))):
        yield walked.step.origin, walked.rule.inverse(walked.scope, walked.step.edit)
    if recipe.source.strip:
        old = {key: source for key, row in table.items() for source in [str(row.expr)] if source != key}
        prefixes = "".join(recipe.source.strip)
        whole = len(old) == len(table) and all(source == prefixes + key for key, source in old.items())
        pairs = {"{k:**}": f"{prefixes}{{k}}"} if whole else old
        yield recipe.source_origin, Inverse("exact", ({"op": "rename", "map": pairs},))


def _flow(value: object) -> str:
    """Write a value as YAML of one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return value if isinstance(value, str) and value.isidentifier() and not _is_word(value) else json.dumps(value)


def _key(key: object) -> str:
    text = str(key)
    return text if text.isidentifier() and not _is_word(text) else json.dumps(text)


def _is_word(text: str) -> bool:
    """Tell a text that YAML reads as something else."""
    return text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "nan", "inf")
