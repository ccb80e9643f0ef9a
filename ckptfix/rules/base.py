"""What a rule is: a pydantic schema and one function from a table of expressions to an edit of it.

A rule file defines one subclass of `Rule`. It never changes the table: `edit` says which keys it takes out and
which it makes, and the plan applies that, finds collisions and keeps the trace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from ckptfix.edits import Edit, Example, Inverse, Made, Scope, lossy
from ckptfix.errors import CkptfixError, LayoutError, PatternError
from ckptfix.expr import Expr
from ckptfix.keys import Group, KeyPattern, KeyTemplate, Member
from ckptfix.layout import names_of, parse_tensor


def _read_pattern(value: object) -> KeyPattern:
    if isinstance(value, KeyPattern):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a pattern is a text, not {value!r}")
    try:
        pattern = KeyPattern.parse(value)
        pattern.check()
    except PatternError as error:
        raise ValueError(str(error)) from error
    return pattern


def _read_template(value: object) -> KeyTemplate:
    if isinstance(value, KeyTemplate):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a key is a text, not {value!r}")
    try:
        return KeyTemplate.parse(value)
    except PatternError as error:
        raise ValueError(str(error)) from error


def _as_list(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


_ONE_OR_MORE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}

Extent = Annotated[int, Field(ge=0)]
Pattern = Annotated[
    KeyPattern, BeforeValidator(_read_pattern), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
Template = Annotated[
    KeyTemplate, BeforeValidator(_read_template), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_as_list), Field(min_length=1), WithJsonSchema(_ONE_OR_MORE)]
Templates = Annotated[
    tuple[Template, ...], BeforeValidator(_as_list), Field(min_length=1), WithJsonSchema(_ONE_OR_MORE)
]


def _describe_op(schema: dict[str, Any]) -> None:
    """Describe the op in the JSON Schema by the first line of its rule, which editors show beside the name."""
    schema["properties"]["op"]["description"] = schema["description"].splitlines()[0]


class Rule(BaseModel, ABC):
    """One edit of the table. A subclass adds `op: Literal[...]`, its fields, and examples."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, json_schema_extra=_describe_op
    )

    optional: bool = Field(default=False, description="A pattern that matches no key is no error.")

    examples: ClassVar[tuple[Example, ...]] = ()
    matches_in: ClassVar[Literal["table", "target"]] = "table"
    """Whose keys the patterns are about."""

    @property
    def name(self) -> str:
        """The op."""
        return str(getattr(self, "op"))  # noqa: B009  every subclass has the field, this class has not

    @abstractmethod
    def edit(self, scope: Scope) -> Edit:
        """Work out what the rule does. Faults are returned, not raised, so that all are reported at once."""

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Say how to undo the edit that the rule made of the scope."""
        return lossy("this op says nothing of an inverse")


class Selection(Struct, frozen=True):
    """The keys that a list of patterns matches, each once, and the patterns that match none."""

    keys: tuple[str, ...]
    unmatched: tuple[KeyPattern, ...]


def select(patterns: Iterable[KeyPattern], keys: Collection[str]) -> Selection:
    """Match whole keys against patterns, keeping the order of the keys."""
    hits = [(pattern, {key for key, _ in pattern.matches(keys)}) for pattern in patterns]
    chosen: set[str] = set().union(*(found for _, found in hits))
    return Selection(
        tuple(key for key in keys if key in chosen), tuple(pattern for pattern, found in hits if not found)
    )


def keys_or_patterns(patterns: Iterable[KeyPattern], wanted: Collection[str], keys: Collection[str]) -> list[str]:
    """Write a set of keys as the patterns that match any, where these match no other of all keys; else singly."""
    matching = [pattern for pattern in patterns if any(pattern.matches(keys))]
    matched = set(select(matching, keys).keys)
    return [pattern.text for pattern in matching] if matched == set(wanted) else list(wanted)


def check_sides(keys: object, sources: object, to: object) -> None:
    """Hold a rule to either `keys`, or `from` and `to`. Raises ValueError."""
    if (keys is None) == (sources is None) or (sources is None) != (to is None):
        raise ValueError("give either keys, or from and to")


def groups_in_place(patterns: Iterable[KeyPattern], table: Collection[str]) -> list[Group]:
    """Make each key that a pattern matches a group of its own."""
    found = dict.fromkeys(key for pattern in patterns for key, _ in pattern.matches(table))
    return [Group({}, ((Member(key),),)) for key in found]


def edit_each(patterns: Iterable[KeyPattern], scope: Scope, make: Callable[[str], Expr | None]) -> Edit:
    """Put in the place of each selected row what is made of it, None leaving it alone; a fault leaves the others."""
    found = select(patterns, scope.table)
    made: list[Made] = []
    faults: list[CkptfixError] = []
    for key in found.keys:
        try:
            expr = make(key)
        except CkptfixError as error:
            faults.append(type(error)(f"'{key}': {error.message}", hint=error.hint))
            continue
        if expr is not None:
            made.append(Made(key, expr, (key,)))
    return Edit(tuple(row.key for row in made), tuple(made), len(made), found.unmatched, tuple(faults))


def check_axes(layout: str, wanted: Iterable[str]) -> list[str]:
    """Give the names of a tensor's axes, which the wanted ones must be among. Raises ValueError."""
    try:
        names = [name for axis in parse_tensor(layout) for name in names_of(axis)]
    except LayoutError as error:
        raise ValueError(f"layout: {error}") from error
    for name in wanted:
        if name not in names:
            raise ValueError(f"'{layout}' has no axis '{name}'; it has {', '.join(names)}")
    return names


def edit_groups(
    patterns: Collection[KeyPattern],
    scope: Scope,
    gathered: Callable[[Scope], list[Group]],
    make: Callable[[Group, Scope], Iterable[Made]],
    needs: Literal["all patterns", "any pattern"],
) -> Edit:
    """Replace the rows of each group by what is made of it; a fault of one group leaves the others."""
    unmatched = tuple(pattern for pattern in patterns if not any(pattern.matches(scope.table)))
    if unmatched and needs == "all patterns":
        return Edit(unmatched=unmatched)
    try:
        groups = gathered(scope)
    except CkptfixError as error:
        return Edit(unmatched=unmatched, faults=(error,))
    made: list[Made] = []
    faults: list[CkptfixError] = []
    for group in groups:
        try:
            made += make(group, scope)
        except CkptfixError as error:
            faults.append(type(error)(f"'{group.first}': {error.message}", hint=error.hint))
    consumed = tuple(member.key for group in groups for members in group.members for member in members)
    return Edit(consumed, tuple(made), len(consumed), unmatched, tuple(faults))
