"""Make a plan, and ask it what becomes of each tensor."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.diff import Diff, compare
from ckptfix.edits import Scope
from ckptfix.errors import CkptfixError, IncompletePlan, Origin, PlanErrors, UnknownVariable
from ckptfix.expr import Cast, sources
from ckptfix.keys import KeyIndex, VarValue, nearest_to_each
from ckptfix.planning.budget import over_budget
from ckptfix.planning.report import Missing, Pair, Report, Unexpected
from ckptfix.planning.table import (
    Expressions,
    Row,
    Step,
    Table,
    apply_edit,
    dropped_sources,
    read_table,
    strip_prefixes,
)
from ckptfix.recipe import Recipe, read_variable
from ckptfix.tensors import DType, Manifest

if TYPE_CHECKING:
    from ckptfix.planning.documents import OutputDocument, PlanDocument
    from ckptfix.rules.base import Rule

_CONFIG = "target.config."
_MOST_SEARCHES = 50
"""Keys for which the nearest are looked up; past that many the names of the two sides have little in common."""


class Plan(Struct, frozen=True, dict=True):
    """A table of expressions held against a target. Nothing has been read yet.

    `dropped` maps a source key to the rule that removed it, `unfilled` a target key to the reason why no rule
    could fill it. `errors` are faults of the recipe, all of them.
    """

    have: Manifest
    want: Manifest
    recipe: Recipe
    rows: Mapping[str, Row]
    steps: tuple[Step, ...]
    dropped: Mapping[str, int]
    unfilled: Mapping[str, str]
    errors: tuple[CkptfixError, ...]
    diff: Diff
    values: Mapping[str, VarValue] = field(default_factory=dict)
    """The variables, looked up."""
    wrappers: tuple[str, ...] = ()
    dtype: DType | None = None
    """What every floating output is cast to after the rules, if that was asked for."""
    notes: tuple[str, ...] = ()
    """What should be known of how either side was read."""

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of both sides is accounted for."""
        return self.diff.is_clean and not self.errors

    @property
    def exit_code(self) -> int:
        """0 complete, 1 incomplete, 2 where the recipe is wrong."""
        return 2 if self.errors else int(not self.diff.is_clean)

    @cached_property
    def outputs(self) -> dict[str, Row]:
        """The rows that fit the target, in its order."""
        return {key: self.rows[key] for key in self.diff.matched}

    @property
    def filled(self) -> tuple[str, ...]:
        """The target keys made without a source tensor."""
        return tuple(key for key, row in self.outputs.items() if not sources(row.expr))

    @property
    def tied_apart(self) -> tuple[tuple[str, ...], ...]:
        """The groups of keys that are one tensor in the target and are made in different ways."""
        rows = self.outputs
        groups = [tuple(key for key in group if key in rows) for group in self.want.tied]
        return tuple(group for group in groups if len({rows[key].expr for key in group}) > 1)

    def origin_of(self, key: str) -> Origin | None:
        """Say which rule made a key, or whether the cast of the whole output did; None where none did."""
        row = self.rows.get(key)
        if row is None:
            return None
        if self.dtype is not None and isinstance(row.expr, Cast) and row.expr.dtype is self.dtype:
            return Origin(f"dtype {self.dtype}")
        return self.recipe.origins[row.rule - 1] if row.rule else None

    def report(self, also_filled: Collection[str] = ()) -> Report:
        """Account for every tensor. `also_filled` are keys that the source itself says were filled."""
        filled = {*self.filled, *also_filled}
        loaded = tuple(key for key in self.diff.matched if key not in filled)
        near_source = nearest_to_each(self.diff.missing[:_MOST_SEARCHES], [*self.diff.unexpected, *self.dropped])
        taken = set(loaded)
        near_target = nearest_to_each(
            self.diff.unexpected[:_MOST_SEARCHES], [key for key in self.want if key not in taken]
        )
        elements = sum(self.want[key].numel for key in loaded)
        return Report(
            loaded=loaded,
            filled=tuple(key for key in self.diff.matched if key in filled),
            dropped=tuple(self.dropped),
            missing=tuple(
                Missing(key, self.want[key], near_source.get(key, ()), self._hint(key)) for key in self.diff.missing
            ),
            unexpected=tuple(
                Unexpected(key, tuple(sources(row.expr)), row.expr.spec, near_target.get(key, ()))
                for key, row in self.rows.items()
                if key not in self.want
            ),
            mismatched=tuple(self._pair(key) for key in self.diff.mismatched),
            dtypes=tuple(self._pair(key) for key in self.diff.dtypes),
            collisions=tuple(collision for step in self.steps for collision in step.collisions),
            errors=self.errors,
            tensors=len(loaded) / len(self.want) if self.want else 1.0,
            params=elements / self.want.numel if self.want.numel else float(len(loaded) == len(self.want)),
            wrappers=self.wrappers if all(key.startswith("".join(self.wrappers)) for key in self.rows) else (),
            notes=self.notes,
            wanted=len(self.want),
        )

    def to_json(self) -> PlanDocument:
        """Give the document of `plan --json`."""
        outputs: dict[str, OutputDocument] = {
            key: {
                "from": sources(row.expr),
                "rule": row.rule,
                "line": self.recipe.origins[row.rule - 1].line if row.rule else None,
                "how": str(row.expr),
            }
            for key, row in self.outputs.items()
        }
        return {**self.report().to_json(), "outputs": outputs}

    def raise_for_errors(self) -> None:
        """Raise the recipe's fault, or PlanErrors with all of them in `parts`."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise PlanErrors(f"{len(self.errors)} faults in the recipe", where=self.recipe.file, parts=self.errors)

    def raise_for_gaps(self) -> None:
        """Raise IncompletePlan unless every tensor is accounted for."""
        if not self.diff.is_clean:
            wrapped = f"; every source key has the prefix '{''.join(self.wrappers)}'" if self.report().wrappers else ""
            raise IncompletePlan(
                f"incomplete: {_counts(self.diff)}{wrapped}",
                hint="`ckptfix check` lists them; rename, copy, drop or fill accounts for a tensor",
            )

    def with_dtype(self, dtype: DType) -> Plan:
        """Cast every floating output."""
        rows = {
            key: replace(row, expr=Cast(row.expr, dtype))
            if row.expr.spec.dtype.kind == "float" and row.expr.spec.dtype is not dtype
            else row
            for key, row in self.rows.items()
        }
        return replace(self, rows=rows, diff=_compare(rows, self.want), dtype=dtype)

    def only(self, keys: Collection[str]) -> Plan:
        """Give the plan of some of the outputs, to be written by themselves."""
        rows = {key: self.rows[key] for key in keys}
        want = self.want.only(keys)
        return replace(self, rows=rows, want=want, diff=_compare(rows, want), steps=(), dropped={})

    def trace(self, key: str) -> list[str]:
        """Follow one key of the target back through every rule, last first."""
        if key not in self.rows:
            return []
        lines = [f"{key} = {self.rows[key].expr}"]
        wanted = {key}
        for step in reversed(self.steps):
            hits = [made for made in step.edit.made if made.key in wanted]
            for made in hits:
                parents = ", ".join(made.parents) or "nothing"
                lines.append(f"{step.origin}: {made.key} from {parents}: {made.expr}")
                wanted = (wanted - {made.key}) | set(made.parents)
        lines += [f"source: {source} {self.have[source]}" for source in sources(self.rows[key].expr)]
        return lines

    def _pair(self, key: str) -> Pair:
        return Pair(key, self.rows[key].expr.spec, self.want[key])

    def _hint(self, key: str) -> str | None:
        if key in self.unfilled:
            return self.unfilled[key]
        for group in self.want.tied:
            partners = [other for other in group if other != key and other in self.rows]
            if key in group and partners:
                return f"tied to '{partners[0]}', which is there: {{op: copy, from: {partners[0]}, to: {key}}}"
        return None


def make_plan(
    recipe: Recipe,
    have: Manifest,
    want: Manifest,
    *,
    variables: Mapping[str, VarValue] | None = None,
    config: Mapping[str, object] | None = None,
    no_initial_values: str | None = None,
    wrappers: tuple[str, ...] = (),
    max_output: int | None = None,
) -> Plan:
    """Run the rules over the table of source tensors.

    `variables` override the recipe's, `config` is what `target.config.NAME` looks up, `max_output` bounds the bytes
    that a rule may make. Faults do not stop the run: they are collected in `Plan.errors`. Raises RuleError where more
    than a hundred rules change one tensor.
    """
    values, errors = _variables(recipe, variables or {}, config or {})
    errors += _unused(recipe, variables or {})
    table, faults = strip_prefixes(read_table(have), recipe.source.strip, recipe.source_origin)
    errors += faults
    steps: list[Step] = []
    dropped: dict[str, int] = {}
    unfilled: dict[str, str] = {}
    for walked in walk(recipe, table, Scope({}, want, values, no_initial_values)):
        dropped |= dict.fromkeys(dropped_sources(table, walked.step.edit), walked.step.number)
        unfilled |= walked.step.edit.unfilled
        steps.append(walked.step)
        errors += walked.step.errors
        if max_output is not None:
            errors += over_budget(walked.step.edit.made, walked.step.origin, max_output)
        table = walked.table
    used = {key for row in table.values() for key in sources(row.expr)}
    return Plan(
        have=have,
        want=want,
        recipe=recipe,
        rows=table,
        steps=tuple(steps),
        dropped={key: number for key, number in dropped.items() if key not in used},
        unfilled=unfilled,
        errors=tuple(errors),
        diff=_compare(table, want),
        values=values,
        wrappers=wrappers,
    )


class Walked(Struct, frozen=True):
    """One rule at work: what it looked at, what it did, and the table after it."""

    rule: Rule
    scope: Scope
    step: Step
    table: Table


def walk(recipe: Recipe, table: Table, scope: Scope) -> Iterator[Walked]:
    """Apply the rules one after the other. `scope` gives everything but the table."""
    index = KeyIndex(table)
    for number, (rule, origin) in enumerate(zip(recipe.rules, recipe.origins, strict=True), 1):
        here = replace(scope, table=Expressions(table, index))
        edit = rule.edit(here)
        if rule.optional:
            edit = replace(edit, unmatched=())
        keys = scope.want if rule.matches_in == "target" else table
        table, step = apply_edit(table, number, origin, edit, keys, rule.matches_in)
        yield Walked(rule, here, step, table)
        index.follow(table, [made.key for made in edit.made if table[made.key].rule == number])


def _compare(table: Mapping[str, Row], want: Manifest) -> Diff:
    return compare({key: row.expr.spec for key, row in table.items()}, want)


def _variables(
    recipe: Recipe, overrides: Mapping[str, VarValue], config: Mapping[str, object]
) -> tuple[dict[str, VarValue], list[CkptfixError]]:
    values: dict[str, VarValue] = {}
    errors: list[CkptfixError] = []
    for name, value in (dict(recipe.variables) | dict(overrides)).items():
        try:
            values[name] = _look_up(value, config)
        except (KeyError, ValueError) as error:
            hint = f"give --var {name}=...; the config has {', '.join(sorted(config)) or 'nothing'}"
            errors.append(UnknownVariable(f"'{name}': {error.args[0]}", where=recipe.variables_origin, hint=hint))
    return values, errors


def _unused(recipe: Recipe, overrides: Mapping[str, VarValue]) -> list[CkptfixError]:
    """Give an error for each overriding variable that the recipe neither declares nor uses."""
    rules = " ".join(rule.model_dump_json(by_alias=True) for rule in recipe.rules) if overrides else ""
    return [
        UnknownVariable(f"nothing uses the variable '{name}'", where=recipe.file, hint=_declared(recipe))
        for name in overrides
        if name not in recipe.variables and not re.search(rf"\b{re.escape(name)}\b", rules)
    ]


def _declared(recipe: Recipe) -> str:
    return f"the recipe declares {', '.join(recipe.variables) or 'none'}"


def _look_up(value: object, config: Mapping[str, object]) -> VarValue:
    """Follow `target.config.NAME`. Raises KeyError or ValueError."""
    if not (isinstance(value, str) and value.startswith(_CONFIG)):
        return read_variable(value)
    entry = value.removeprefix(_CONFIG)
    if entry not in config:
        raise KeyError(f"the target's config has no '{entry}'")
    return read_variable(config[entry])


def _counts(diff: Diff) -> str:
    counts = {"missing": diff.missing, "unexpected": diff.unexpected, "mismatched": diff.mismatched}
    return ", ".join(f"{len(keys)} {name} ({_first(keys)})" for name, keys in counts.items() if keys)


def _first(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:2]) + (", ..." if len(keys) > 2 else "")
