"""What a rule is given and what it gives: the table and the target in scope, its edit, and how that is undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct, field

from ckptfix.errors import CkptfixError, RuleError, UnknownVariable
from ckptfix.expr import Expr
from ckptfix.keys import KeyPattern, KeyTemplate, VarValue
from ckptfix.layout import Sizes
from ckptfix.tensors import Manifest


class Scope(Struct, frozen=True):
    """What a rule may look at: the table as it stands, the target, the variables.

    `no_initial_values` says why the target cannot be built, and is None where it can.
    """

    table: Mapping[str, Expr]
    want: Manifest
    variables: Mapping[str, VarValue] = field(default_factory=dict)
    no_initial_values: str | None = None

    def undefined(self, template: KeyTemplate, bound: Iterable[str]) -> UnknownVariable | None:
        """Give the error for a name that neither a placeholder nor a variable defines; None where all are."""
        defined = {*bound, *self.variables}
        known = ", ".join(sorted(defined)) or "none"
        for name in sorted(template.names - defined):
            return UnknownVariable(
                f"'{template}' uses '{name}', which no pattern or variable defines",
                hint=f"give --var {name}=..., or declare it in vars; known here: {known}",
            )
        return None

    def look_up(self, sizes: Mapping[str, int | str]) -> Sizes:
        """Give the extents, those that name a variable looked up. Raises UnknownVariable or RuleError."""
        result: Sizes = {}
        for name, value in sizes.items():
            number = self.variables.get(value) if isinstance(value, str) else value
            if number is None:
                known = ", ".join(sorted(self.variables)) or "none"
                raise UnknownVariable(f"'{value}' is no variable", hint=f"give --var {value}=...; known here: {known}")
            if not isinstance(number, int) or number < 0:
                raise RuleError(f"the variable '{value}' is {number!r}, not an extent")
            result[name] = number
        return result

    def fill(self, template: KeyTemplate, bound: Mapping[str, str]) -> str:
        """Make a key whose names are all defined. Raises PatternError."""
        return template.fill(bound, self.variables)


class Made(Struct, frozen=True, gc=False):
    """A key that a rule makes, how, and out of which keys of the table."""

    key: str
    expr: Expr
    parents: tuple[str, ...] = ()


class Edit(Struct, frozen=True):
    """What a rule does to the table. `selected` counts the keys it applied to, after `when`.

    `unmatched` are the patterns without a key, `faults` whatever else makes the rule inapplicable, `unfilled` the
    target keys that it would have made if the target could be built, with the reason.
    """

    consumed: tuple[str, ...] = ()
    made: tuple[Made, ...] = ()
    selected: int = 0
    unmatched: tuple[KeyPattern, ...] = ()
    faults: tuple[CkptfixError, ...] = ()
    unfilled: Mapping[str, str] = field(default_factory=dict)


class Inverse(Struct, frozen=True):
    """How what a rule did is undone: by rules as they are written, or why it cannot be.

    `exact` gives the bytes back, `conditional` does so where `why` holds, `lossy` cannot.
    """

    kind: Literal["exact", "conditional", "lossy"]
    rules: tuple[Mapping[str, object], ...] = ()
    why: str | None = None


def lossy(why: str) -> Inverse:
    """Make the inverse of a rule that has none."""
    return Inverse("lossy", why=why)


class Example(Struct, frozen=True):
    """A rule at work: the rule, the shapes at hand, the target's, and the text of each expression made.

    Shapes stand for F32 tensors unless the value is `"DTYPE [..]"`. `fails` is a text of the error instead.
    """

    rule: str
    have: Mapping[str, list[int] | str]
    want: Mapping[str, list[int] | str]
    gives: Mapping[str, str] = field(default_factory=dict)
    fails: str | None = None
