"""Remove tensors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ckptfix.edits import Edit, Example, Inverse, Scope, lossy
from ckptfix.rules.base import Patterns, Rule, select


class Drop(Rule):
    """Remove tensors by name, or only those among them that the target does not know or has in another shape.

    A pattern matches whole keys: `fc*` does not touch `blocks.0.fc1.weight`; `**.fc*.*` does.
    """

    op: Literal["drop"]
    keys: Patterns = Field(description="Patterns of the keys to remove.")
    when: Literal["always", "unexpected", "mismatched"] = Field(
        default="always",
        description="unexpected: the target has no such key; mismatched: it has it with another shape.",
    )

    examples = (
        Example(
            rule='{op: drop, keys: "head.*"}',
            have={"head.weight": [9, 3], "head.bias": [9], "stem.weight": [3, 3]},
            want={"stem.weight": [3, 3]},
            gives={"stem.weight": "stem.weight"},
        ),
        Example(
            rule='{op: drop, keys: "**", when: mismatched}',
            have={"head.weight": [9, 3], "stem.weight": [3, 3], "extra": [1]},
            want={"head.weight": [3, 9], "stem.weight": [3, 3]},
            gives={"stem.weight": "stem.weight", "extra": "extra"},
        ),
        Example(
            rule='{op: drop, keys: "**", when: unexpected}',
            have={"stem.weight": [3, 3], "extra": [1]},
            want={"stem.weight": [3, 3]},
            gives={"stem.weight": "stem.weight"},
        ),
        Example(rule='{op: drop, keys: "fc"}', have={"fc1.w": [1]}, want={}, fails="'fc' matches no key"),
    )

    def edit(self, scope: Scope) -> Edit:
        """Take the selected rows out."""
        found = select(self.keys, scope.table)
        dropped = tuple(key for key in found.keys if self._applies(key, scope))
        return Edit(consumed=dropped, selected=len(dropped), unmatched=found.unmatched)

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Nothing brings a dropped tensor back."""
        return lossy(f"{len(edit.consumed)} tensors are dropped") if edit.consumed else Inverse("exact")

    def _applies(self, key: str, scope: Scope) -> bool:
        if self.when == "unexpected":
            return key not in scope.want
        if self.when == "mismatched":
            return key in scope.want and scope.want[key].shape != scope.table[key].spec.shape
        return True
