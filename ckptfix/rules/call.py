"""Make tensors by a named function."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct
from pydantic import Field, model_validator

from ckptfix.calls import find_function
from ckptfix.edits import Edit, Example, Made, Scope
from ckptfix.errors import RuleError
from ckptfix.expr import Compute
from ckptfix.keys import Group, KeyPattern, gather
from ckptfix.rules.base import Patterns, Rule, Templates, check_sides, edit_groups, groups_in_place


class Output(Struct, frozen=True):
    """One output of a function with its arguments, as something to call. Equal where the arguments are."""

    fn: str
    args: str
    number: int

    def __call__(self, *tensors: Any) -> Any:  # torch tensors; rules do not import torch
        """Compute all outputs and give this one."""
        return find_function(self.fn).compute(tensors, json.loads(self.args))[self.number]


class Call(Rule):
    """Make tensors by a function, for what the other ops cannot say: sums, products, quotients.

    Shipped are `merge_lora`, `fold_weight_norm`, `unfold_weight_norm`, `fold_batch_norm` and `dequantise_blocks`; a
    package brings more by an entry point of the group `ckptfix.rules`. Placeholders shared by `from` and `to` run the
    function once per combination; `from` is consumed.
    """

    op: Literal["call"]
    fn: str = Field(description="The function's name.")
    keys: Patterns | None = Field(default=None, description="Patterns of the keys to change in place.")
    sources: Patterns | None = Field(default=None, alias="from", description="One pattern for each input.")
    to: Templates | None = Field(default=None, description="One new key for each output.")
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments of the function.")

    examples = (
        Example(
            rule='{op: call, fn: merge_lora, from: ["{m}.weight", "{m}.lora_A.weight", "{m}.lora_B.weight"], '
            'to: "{m}.weight", args: {scale: 2.0}}',
            have={"q.weight": [6, 4], "q.lora_A.weight": [2, 4], "q.lora_B.weight": [6, 2]},
            want={"q.weight": [6, 4]},
            gives={"q.weight": "merge_lora(q.weight, q.lora_A.weight, q.lora_B.weight)"},
        ),
        Example(
            rule='{op: call, fn: fold_weight_norm, from: ["{m}.weight_g", "{m}.weight_v"], to: "{m}.weight"}',
            have={"conv.weight_g": [6, 1, 1], "conv.weight_v": [6, 4, 3]},
            want={"conv.weight": [6, 4, 3]},
            gives={"conv.weight": "fold_weight_norm(conv.weight_g, conv.weight_v)"},
        ),
        Example(
            rule='{op: call, fn: fold_weight_norm, from: ["{m}.weight_g", "{m}.weight_v"], to: "{m}.weight"}',
            have={"conv.weight_g": [1, 4, 1], "conv.weight_v": [6, 4, 3]},
            want={},
            fails="weight_g is [1, 4, 1], along dimension 0 of [6, 4, 3] it would be [6, 1, 1]",
        ),
        Example(
            rule='{op: call, fn: merge_laura, keys: "**"}',
            have={"w": [1]},
            want={},
            fails="no function 'merge_laura' is installed",
        ),
    )

    @model_validator(mode="after")
    def _check_sides(self) -> Call:
        check_sides(self.keys, self.sources, self.to)
        try:
            find_function(self.fn)
        except RuleError as error:
            raise ValueError(str(error)) from error
        return self

    def edit(self, scope: Scope) -> Edit:
        """Replace the rows of each group by the function's outputs."""
        if self.keys:
            return edit_groups(self.keys, scope, self._groups, self._called, "any pattern")
        return edit_groups(self.sources or (), scope, self._groups, self._called, "all patterns")

    def _groups(self, scope: Scope) -> list[Group]:
        if self.keys:
            return groups_in_place(self.keys, scope.table)
        patterns: tuple[KeyPattern, ...] = self.sources or ()
        names = {name for pattern in patterns for name in pattern.names}
        for template in self.to or ():
            if undefined := scope.undefined(template, names):
                raise undefined
        return gather(patterns, scope.table, names)

    def _called(self, group: Group, scope: Scope) -> Iterator[Made]:
        keys = tuple(member.key for members in group.members for member in members)
        parts = tuple(scope.table[key] for key in keys)
        specs = find_function(self.fn).infer([part.spec for part in parts], self.args)
        outputs = [scope.fill(template, group.bound) for template in self.to] if self.to else [group.first]
        if len(specs) != len(outputs):
            raise RuleError(f"{self.fn} makes {len(specs)} tensors, {len(outputs)} keys are given")
        args = json.dumps(self.args, sort_keys=True)
        for number, (key, spec) in enumerate(zip(outputs, specs, strict=True)):
            yield Made(key, Compute(parts, spec, Output(self.fn, args, number), self.fn), keys)
