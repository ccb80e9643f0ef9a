"""Give tensors new keys."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace
from pydantic import Field

from ckptfix.edits import Edit, Example, Inverse, Made, Scope, lossy
from ckptfix.errors import CkptfixError, KeyCollision
from ckptfix.keys import KeyPattern, invert_keys
from ckptfix.rules.base import Pattern, Rule, Template


class Rename(Rule):
    """Give tensors new keys. All pairs of one rule apply at once, so a swap is one rule.

    A pattern matches whole keys: `{i}` and `*` stand for a text without a dot, `{x:**}` for whole segments. The
    new key may calculate, `{i+1}`, and look up variables, `{stage[i]}`.
    """

    op: Literal["rename"]
    map: dict[Pattern, Template] = Field(description="Pattern of the present key to the new key.", min_length=1)

    examples = (
        Example(
            rule='{op: rename, map: {"module.{k:**}": "{k}"}}',
            have={"module.fc.weight": [5, 3]},
            want={"fc.weight": [5, 3]},
            gives={"fc.weight": "module.fc.weight"},
        ),
        Example(
            rule='{op: rename, map: {"layer{i}.{p:**}": "stages.{i-1}.{p}"}}',
            have={"layer1.0.w": [2]},
            want={"stages.0.0.w": [2]},
            gives={"stages.0.0.w": "layer1.0.w"},
        ),
        Example(
            rule="{op: rename, map: {a: b, b: a}}",
            have={"a": [1], "b": [2]},
            want={"a": [2], "b": [1]},
            gives={"a": "b", "b": "a"},
        ),
        Example(
            rule='{op: rename, map: {"{x}.w": "{x-1}.w"}}',
            have={"stem.w": [1]},
            want={},
            fails="x is 'stem', not an integer",
        ),
        Example(
            rule='{op: rename, map: {"a.*": b, "*.w": c}}',
            have={"a.w": [1]},
            want={},
            fails="'a.w' is renamed to 'b' and to 'c'",
        ),
    )

    def edit(self, scope: Scope) -> Edit:
        """Move each matched row to its new key."""
        new_keys: dict[str, str] = {}
        unmatched: list[KeyPattern] = []
        faults: list[CkptfixError] = []
        for pattern, template in self.map.items():
            if undefined := scope.undefined(template, pattern.names):
                faults.append(undefined)
                continue
            hit = False
            for key, bound in pattern.matches(scope.table):
                hit = True
                try:
                    new = scope.fill(template, bound)
                except CkptfixError as error:
                    faults.append(type(error)(f"'{key}': {error.message}", hint=error.hint))
                    continue
                if new_keys.setdefault(key, new) != new:
                    faults.append(KeyCollision(f"'{key}' is renamed to '{new_keys[key]}' and to '{new}'"))
            if not hit:
                unmatched.append(pattern)
        made = tuple(Made(new, scope.table[key], (key,)) for key, new in new_keys.items())
        return Edit(tuple(new_keys), made, len(new_keys), tuple(unmatched), tuple(faults))

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Rename back: by the pairs turned round where these lead back, else key by key."""
        pairs = {made.key: made.parents[0] for made in edit.made}
        after = {key: expr for key, expr in scope.table.items() if key not in edit.consumed}
        after |= {made.key: made.expr for made in edit.made}
        turned = self._turned()
        if turned is not None:
            back = Rename.model_validate({"op": "rename", "map": turned}).edit(replace(scope, table=after))
            if not back.faults and {made.parents[0]: made.key for made in back.made} == pairs:
                unused = {pattern.text for pattern in back.unmatched}
                kept = {key: new for key, new in turned.items() if key not in unused}
                return Inverse("exact", ({"op": "rename", "map": kept},) if kept else ())
        if unwritable := [key for key in pairs.values() if set(key) & set("*{}")]:
            return lossy(f"the key '{unwritable[0]}' has a letter that stands for others in a recipe")
        return Inverse("exact", ({"op": "rename", "map": pairs},) if pairs else ())

    def _turned(self) -> dict[str, str] | None:
        """Turn each pair round; None where one cannot be."""
        turned: dict[str, str] = {}
        for pattern, template in self.map.items():
            back = invert_keys([pattern], [template])
            if back is None or back[0][0] in turned or not set(template.names) <= set(pattern.names):
                return None
            turned[back[0][0]] = back[1][0]
        return turned
