"""Templates of keys: `stages.{i - 1}.{p}` makes a new key out of what a pattern has matched."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from ckptfix.errors import PatternError
from ckptfix.keys.pattern import KeyPattern

VarValue = int | str | Sequence["VarValue"] | Mapping[str, "VarValue"]
"""What a variable of a recipe may hold."""

_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: lambda left, right: left % right,
}
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_WILD = re.compile(r"[{}*]")
_LONGEST_EXPRESSION = 200
_MOST_DIGITS = 18


class KeyTemplate(Struct, frozen=True, dict=True):
    """The `to` side of a rule: text with `{name}`, `{i + 1}` or `{stage[i]}` in it."""

    text: str

    @classmethod
    def parse(cls, text: str) -> KeyTemplate:
        """Read a template. Raises PatternError for a wildcard or an expression that is none."""
        if not text:
            raise PatternError("an empty key")
        template = cls(text)
        _ = template._parts
        return template

    @cached_property
    def _parts(self) -> tuple[str | ast.expr, ...]:
        parts: list[str | ast.expr] = []
        position = 0
        for found in _EXPRESSION.finditer(self.text):
            parts.append(_literal(self.text, self.text[position : found.start()]))
            parts.append(_parse_expression(self.text, found[1]))
            position = found.end()
        parts.append(_literal(self.text, self.text[position:]))
        return tuple(parts)

    @property
    def names(self) -> frozenset[str]:
        """Every placeholder and variable that the template uses."""
        return frozenset(
            node.id
            for part in self._parts
            if isinstance(part, ast.expr)
            for node in ast.walk(part)
            if isinstance(node, ast.Name)
        )

    @property
    def placeholders(self) -> frozenset[str]:
        """The names that stand alone in their braces, so that a pattern could find their texts."""
        return frozenset(part.id for part in self._parts if isinstance(part, ast.Name))

    def fill(self, bound: Mapping[str, str], variables: Mapping[str, VarValue]) -> str:
        """Make the key. Raises PatternError for a non-integer in arithmetic, KeyError for an unknown name."""
        return "".join(
            part if isinstance(part, str) else _text(part, _evaluate(part, bound, variables)) for part in self._parts
        )

    def pattern(self, bound: Mapping[str, str], variables: Mapping[str, VarValue]) -> KeyPattern:
        """Make the pattern of all keys that the template can give, whatever stands for its undefined names.

        Raises PatternError, and KeyError for an undefined name inside an expression.
        """
        texts: list[str] = []
        for part in self._parts:
            if isinstance(part, ast.Name) and part.id not in bound and part.id not in variables:
                texts.append(f"{{{part.id}}}")
                continue
            text = part if isinstance(part, str) else _text(part, _evaluate(part, bound, variables))
            if _WILD.search(text):
                raise PatternError(f"'{self.text}': '{text}' holds a brace or a '*'")
            texts.append(text)
        return KeyPattern.parse("".join(texts))

    def __str__(self) -> str:
        return self.text


def _literal(text: str, part: str) -> str:
    if "*" in part:
        raise PatternError(f"'{text}': a wildcard has no text to put into a new key", hint="name it: {x} or {x:**}")
    if "{" in part or "}" in part:
        raise PatternError(f"'{text}': a stray brace", hint="an expression reads {i} or {i + 1}")
    return part


def _parse_expression(text: str, source: str) -> ast.expr:
    hint = "write {name}, {i + 1} with + - * // %, or {variable[i]}"
    if len(source) > _LONGEST_EXPRESSION:
        raise PatternError(f"an expression of {len(source)} characters", hint=hint)
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PatternError(f"'{text}': '{{{source}}}' is no expression", hint=hint) from error
    allowed = (ast.BinOp, ast.UnaryOp, ast.USub, ast.Name, ast.Load, ast.Constant, ast.Subscript, ast.operator)
    for node in ast.walk(tree):
        if not isinstance(node, allowed) or (isinstance(node, ast.operator) and type(node) not in _ARITHMETIC):
            raise PatternError(f"'{text}': '{{{source}}}' is no expression", hint=hint)
        if isinstance(node, ast.Constant) and type(node.value) is not int:
            raise PatternError(f"'{text}': {node.value!r} is not an integer", hint=hint)
        if isinstance(node, ast.Subscript) and not isinstance(node.value, ast.Name | ast.Subscript):
            raise PatternError(f"'{text}': only a variable can be indexed", hint=hint)
    return tree


def _evaluate(node: ast.expr, bound: Mapping[str, str], variables: Mapping[str, VarValue]) -> VarValue:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return bound[name] if name in bound else variables[name]
        case ast.UnaryOp(operand=operand):
            return -_integer(operand, bound, variables)
        case ast.BinOp(left=left, op=op, right=right):
            numbers = _integer(left, bound, variables), _integer(right, bound, variables)
            try:
                return _ARITHMETIC[type(op)](*numbers)
            except ZeroDivisionError:
                raise PatternError(f"'{ast.unparse(node)}' divides by zero") from None
        case ast.Subscript(value=value, slice=index):
            return _look_up(value, _evaluate(value, bound, variables), _evaluate(index, bound, variables))
    raise AssertionError(ast.dump(node))


def _text(node: ast.expr, value: VarValue) -> str:
    if isinstance(value, int | str):
        return str(value)
    kind = "map" if isinstance(value, Mapping) else "list"
    raise PatternError(f"{ast.unparse(node)} is a {kind}, not a text", hint=f"look an entry up: {ast.unparse(node)}[i]")


def _integer(node: ast.expr, bound: Mapping[str, str], variables: Mapping[str, VarValue]) -> int:
    value = _evaluate(node, bound, variables)
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS:
        return int(value)
    raise PatternError(f"{ast.unparse(node)} is '{value}', not an integer", hint="match it with {x:int}")


def _look_up(node: ast.expr, table: VarValue, index: VarValue) -> VarValue:
    name = ast.unparse(node)
    if isinstance(table, Mapping):
        if str(index) in table:
            return table[str(index)]
        raise PatternError(f"{name} has no entry '{index}'", hint=f"it has {', '.join(table)}")
    if isinstance(table, Sequence) and not isinstance(table, str):
        text = str(index)
        if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < len(table):
            return table[int(text)]
        raise PatternError(f"{name} has no entry {index}", hint=f"it is a list of {len(table)}")
    raise PatternError(f"{name} is neither a list nor a map")
