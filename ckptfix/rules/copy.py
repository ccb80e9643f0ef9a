"""Use one tensor under more keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ckptfix.edits import Edit, Example, Inverse, Made, Scope
from ckptfix.errors import CkptfixError, PatternError
from ckptfix.keys import KeyPattern, KeyTemplate, nearest_keys
from ckptfix.rules.base import Patterns, Rule, Templates


class Copy(Rule):
    """Use one tensor under more keys; the original stays. Ties weights, and spreads one over many layers.

    A placeholder of `to` that `from` does not bind runs over the target's own keys.
    """

    op: Literal["copy"]
    sources: Patterns = Field(alias="from", description="Patterns of the present keys.")
    to: Templates = Field(description="The additional keys.")

    examples = (
        Example(
            rule="{op: copy, from: wte.weight, to: lm_head.weight}",
            have={"wte.weight": [9, 2]},
            want={"wte.weight": [9, 2], "lm_head.weight": [9, 2]},
            gives={"wte.weight": "wte.weight", "lm_head.weight": "wte.weight"},
        ),
        Example(
            rule='{op: copy, from: "shared.{p}", to: "layers.{i}.norm.{p}"}',
            have={"shared.w": [2]},
            want={"layers.0.norm.w": [2], "layers.1.norm.w": [2]},
            gives={"shared.w": "shared.w", "layers.0.norm.w": "shared.w", "layers.1.norm.w": "shared.w"},
        ),
    )

    def edit(self, scope: Scope) -> Edit:
        """Add rows with the same expression."""
        made: list[Made] = []
        unmatched: list[KeyPattern] = []
        faults: list[CkptfixError] = []
        for pattern in self.sources:
            undefined = [
                error
                for template in self.to
                if (error := scope.undefined(template, {*pattern.names, *template.placeholders}))
            ]
            if undefined:
                faults += undefined
                continue
            found = list(pattern.matches(scope.table))
            if not found:
                unmatched.append(pattern)
            for key, bound in found:
                for template in self.to:
                    try:
                        new_keys = _new_keys(template, bound, scope)
                    except CkptfixError as error:
                        faults.append(type(error)(f"'{key}': {error.message}", hint=error.hint))
                        continue
                    made += [Made(new, scope.table[key], (key,)) for new in new_keys]
        return Edit((), tuple(made), len(made), tuple(unmatched), tuple(faults))

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Drop the copies."""
        copies = [made.key for made in edit.made]
        why = "the copies are still equal to the original"
        return Inverse("conditional", ({"op": "drop", "keys": copies},), why) if copies else Inverse("exact")


def _new_keys(template: KeyTemplate, bound: Mapping[str, str], scope: Scope) -> list[str]:
    if template.names <= bound.keys() | scope.variables.keys():
        return [scope.fill(template, bound)]
    new_keys = [key for key, _ in template.pattern(bound, scope.variables).matches(scope.want)]
    if not new_keys:
        near = nearest_keys(template.text, scope.want)
        raise PatternError(
            f"'{template}' matches no key of the target", hint=f"nearest: {', '.join(near)}" if near else None
        )
    return new_keys
