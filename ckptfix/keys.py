"""The language of key patterns: `blocks.{i}.attn.{p}` matches whole keys, and fills new ones.

A pattern is read once into a regular expression. Where that expression could backtrack for long (a regex of
the user's, or more than two wildcards in one segment), it runs in RE2, whose time is linear in the key.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Literal, cast

from ckptfix.errors import PatternError

VarValue = int | str | Sequence["VarValue"] | Mapping[str, "VarValue"]
"""What a variable of a recipe may hold."""

_TOKEN = re.compile(
    r"\{(?P<name>[A-Za-z_]\w*)(?::(?P<kind>/.*?/(?=\})|[^{}]*))?\}|(?P<many>\*\*)|(?P<one>\*)|(?P<stray>[{}])"
)
_ONE = "[^.]+"
_MANY = ".*"


@dataclass(frozen=True)
class KeyPattern:
    """A pattern over whole keys. `names` are its placeholders, in order of first use."""

    text: str
    names: tuple[str, ...]
    _source: str
    _groups: tuple[tuple[str, str], ...]
    _engine: Literal["re", "re2"]

    @classmethod
    def parse(cls, text: str) -> KeyPattern:
        """Read a pattern. Raises PatternError, naming the part that is wrong."""
        if not text:
            raise PatternError("an empty pattern matches no key")
        tokens = list(_TOKEN.finditer(text))
        atoms = [_atom(text, token) for token in tokens]
        if atoms.count(_MANY) > 1:
            raise PatternError(f"'{text}': '**' may stand once in a pattern")
        engine: Literal["re", "re2"] = "re2" if _may_backtrack(text, tokens) else "re"
        source: list[str] = []
        groups: list[tuple[str, str]] = []
        position = 0
        for token, atom in zip(tokens, atoms, strict=True):
            source.append(re.escape(text[position : token.start()]))
            position = token.end()
            name = token["name"]
            first = next((group for group, known in groups if known == name), None)
            if name is None:
                source.append(f"(?:{atom})")
            elif first and engine == "re":
                source.append(f"(?P={first})")
            else:
                groups.append((f"g{len(groups)}", name))
                source.append(f"(?P<{groups[-1][0]}>{atom})")
        source.append(re.escape(text[position:]))
        names = tuple(dict.fromkeys(name for _, name in groups))
        return cls(text, names, "".join(source), tuple(groups), engine)

    @cached_property
    def _fullmatch(self) -> Callable[[str], re.Match[str] | None]:
        if self._engine == "re":
            return re.compile(self._source, re.DOTALL).fullmatch
        import re2

        options = re2.Options()
        options.log_errors = False
        options.dot_nl = True
        try:
            return cast("re.Pattern[str]", re2.compile(self._source, options)).fullmatch
        except re2.error as error:
            reason = error.args[0] if error.args else error
            text = reason.decode() if isinstance(reason, bytes) else str(reason)
            raise PatternError(f"'{self.text}': {text}") from error

    def check(self) -> None:
        """Compile the pattern now. Raises PatternError where the regex of a placeholder cannot be read."""
        _ = self._fullmatch

    def match(self, key: str) -> dict[str, str] | None:
        """Give the placeholders' texts where the whole key matches, else None.

        A name used twice must stand for the same text; beside a regex, the longest reading decides.
        """
        found = self._fullmatch(key)
        if found is None:
            return None
        bound: dict[str, str] = {}
        for group, name in self._groups:
            if bound.setdefault(name, found[group]) != found[group]:
                return None
        return bound

    def __str__(self) -> str:
        return self.text


def _atom(text: str, token: re.Match[str]) -> str:
    """Give the regular expression of one wildcard or placeholder."""
    kind = token["kind"]
    if token["stray"]:
        raise PatternError(f"'{text}': a stray '{token['stray']}'", hint="a placeholder reads {name}")
    if token["many"] or kind == "**":
        before, after = text[: token.start()], text[token.end() :]
        if (not before.endswith(".") and before) or (not after.startswith(".") and after):
            raise PatternError(f"'{text}': '{token[0]}' must be a whole segment", hint="use '*' inside a segment")
        return _MANY
    if token["one"] or kind is None:
        return _ONE
    if kind == "int":
        return "[0-9]+"
    if kind.startswith("/") and kind.endswith("/") and len(kind) > 2:
        return f"(?:{kind[1:-1]})"
    if "|" in kind:
        return "|".join(re.escape(choice) for choice in kind.split("|"))
    raise PatternError(
        f"'{text}': '{token[0]}' is no placeholder", hint="write {x}, {x:int}, {x:**}, {x:a|b} or {x:/regex/}"
    )


def _may_backtrack(text: str, tokens: Sequence[re.Match[str]]) -> bool:
    """Tell whether a backtracking engine could take more than quadratic time."""
    if any(token["kind"] and token["kind"].startswith("/") for token in tokens):
        return True
    outside = _TOKEN.sub("*", text)
    return any(segment.count("*") > 2 for segment in outside.split("."))


_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: lambda left, right: left % right,
}
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_LONGEST_EXPRESSION = 200


@dataclass(frozen=True)
class KeyTemplate:
    """The `to` side of a rule: text with `{name}`, `{i + 1}` or `{stage[i]}` in it."""

    text: str
    _parts: tuple[str | ast.expr, ...]

    @classmethod
    def parse(cls, text: str) -> KeyTemplate:
        """Read a template. Raises PatternError for a wildcard or an expression that is none."""
        parts: list[str | ast.expr] = []
        position = 0
        for found in _EXPRESSION.finditer(text):
            parts.append(_literal(text, text[position : found.start()]))
            parts.append(_parse_expression(text, found[1]))
            position = found.end()
        parts.append(_literal(text, text[position:]))
        if not text:
            raise PatternError("an empty key")
        return cls(text, tuple(parts))

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

    def fill(self, bound: Mapping[str, str], variables: Mapping[str, VarValue]) -> str:
        """Make the key. Raises PatternError for a non-integer in arithmetic, KeyError for an unknown name."""
        return "".join(
            part if isinstance(part, str) else str(_evaluate(part, bound, variables)) for part in self._parts
        )

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


def _integer(node: ast.expr, bound: Mapping[str, str], variables: Mapping[str, VarValue]) -> int:
    value = _evaluate(node, bound, variables)
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
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
        if text.isdecimal() and int(text) < len(table):
            return table[int(text)]
        raise PatternError(f"{name} has no entry {index}", hint=f"it is a list of {len(table)}")
    raise PatternError(f"{name} is neither a list nor a map")


_CANDIDATES = 200


def nearest_keys(wanted: str, keys: Iterable[str], limit: int = 3) -> list[str]:
    """List the keys that read most like `wanted`, best first.

    Keys that share a segment are looked at first, so that a long list costs little.
    """
    segments = set(wanted.split("."))
    ranked = sorted(keys, key=lambda key: -len(segments.intersection(key.split("."))))[:_CANDIDATES]
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    scored: list[tuple[float, str]] = []
    for key in ranked:
        matcher.set_seq1(key)
        if matcher.real_quick_ratio() > 0.5 and matcher.quick_ratio() > 0.5 and (ratio := matcher.ratio()) > 0.5:
            scored.append((-ratio, key))
    return [key for _, key in sorted(scored)[:limit]]
