"""Make tensors that the checkpoint does not have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ckptfix.edits import Edit, Example, Inverse, Made, Scope
from ckptfix.errors import CkptfixError, RuleError
from ckptfix.expr import Constant, Expr, Initial, Normal
from ckptfix.rules.base import Patterns, Rule, keys_or_patterns, select
from ckptfix.tensors import TensorSpec

_DEFAULT_STD = 0.02


class Fill(Rule):
    """Make tensors of the target's shape and dtype. The patterns match keys of the TARGET.

    `value: target` keeps what the target's own constructor gives after `torch.manual_seed(seed)`: the way to
    start a new head.
    """

    op: Literal["fill"]
    keys: Patterns = Field(description="Patterns of TARGET keys.")
    value: Literal["target", "zeros", "ones", "normal"] | int | float = Field(
        description="target: the initial value; zeros, ones or a number; normal: random numbers around 0."
    )
    when: Literal["missing", "always"] = Field(
        default="missing",
        description="missing: only keys that are not there yet; always: all, an error for one that is there.",
    )
    std: float | None = Field(
        default=None, gt=0, description=f"Standard deviation of `normal`; {_DEFAULT_STD} if not given."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of `target` and `normal`.")

    matches_in = "target"
    examples = (
        Example(
            rule='{op: fill, keys: "head.*", value: target}',
            have={},
            want={"head.weight": [5, 3]},
            gives={"head.weight": "target(head.weight, seed=0)"},
        ),
        Example(
            rule='{op: fill, keys: "**.num_batches_tracked", value: zeros}',
            have={"bn.weight": [3]},
            want={"bn.weight": [3], "bn.num_batches_tracked": "I64 []"},
            gives={"bn.weight": "bn.weight", "bn.num_batches_tracked": "fill(0)"},
        ),
        Example(
            rule='{op: fill, keys: "**", value: normal, std: 0.5, seed: 3}',
            have={"a": [2]},
            want={"a": [2], "b": [2]},
            gives={"a": "a", "b": "normal(std=0.5, seed=3)"},
        ),
        Example(
            rule="{op: fill, keys: a, value: ones, when: always}",
            have={"a": [2]},
            want={"a": [2]},
            fails="makes 'a', which is already there",
        ),
        Example(
            rule="{op: fill, keys: n, value: 0.5}",
            have={},
            want={"n": "I64 []"},
            fails="'n' is I64 and cannot hold 0.5",
        ),
    )

    @model_validator(mode="after")
    def _check_numbers(self) -> Fill:
        if isinstance(self.value, int) and abs(self.value) >= 1 << 64:
            raise ValueError("value: no tensor holds so large a number")
        if self.std is not None and self.value != "normal":
            raise ValueError("std: only `value: normal` has one")
        return self

    def edit(self, scope: Scope) -> Edit:
        """Add a row for each selected key of the target."""
        found = select(self.keys, scope.want)
        keys = [key for key in found.keys if self.when == "always" or key not in scope.table]
        if self.value == "target" and scope.no_initial_values:
            reason = scope.no_initial_values
            return Edit(unmatched=found.unmatched, unfilled=dict.fromkeys(keys, reason))
        made: list[Made] = []
        faults: list[CkptfixError] = []
        for key in keys:
            try:
                made.append(Made(key, self._value(key, scope.want[key])))
            except RuleError as error:
                faults.append(error)
        return Edit((), tuple(made), len(made), found.unmatched, tuple(faults))

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Drop what was made."""
        made = [row.key for row in edit.made]
        keys = keys_or_patterns(self.keys, made, {*scope.table, *made})
        return Inverse("exact", ({"op": "drop", "keys": keys},) if made else ())

    def _value(self, key: str, spec: TensorSpec) -> Expr:
        if self.value == "target":
            return Initial(spec, key, self.seed)
        if self.value == "normal":
            if spec.dtype.kind != "float":
                raise RuleError(
                    f"'{key}' is {spec.dtype} and cannot hold random numbers", hint="fill it with an integer"
                )
            return Normal(spec, key, self.std or _DEFAULT_STD, self.seed)
        number = {"zeros": 0, "ones": 1}.get(self.value, 0) if isinstance(self.value, str) else self.value
        if not spec.dtype.can_hold(number):
            raise RuleError(f"'{key}' is {spec.dtype} and cannot hold {number}", hint="fill it with another number")
        return Constant(spec, number)
