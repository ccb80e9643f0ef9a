"""Patterns over keys: `blocks.{i}.attn.{p}` matches whole keys.

A pattern is read once into a regular expression. Where that expression could backtrack for long (a regex of
the user's, or several wildcards whose ends no dot fixes), it runs in RE2, whose time is linear in the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, cast

from msgspec import Struct

from ckptfix.errors import PatternError
from ckptfix.keys.index import Searchable

_TOKEN = re.compile(
    r"\{(?P<name>[A-Za-z_]\w*)(?::(?P<kind>/.*?/(?=\})|[^{}]*))?\}|(?P<many>\*\*)|(?P<one>\*)|(?P<stray>[{}])"
)
_ONE = "[^.]+"
_MANY = ".+"


class KeyPattern(Struct, frozen=True, dict=True):
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
        kinds = _kinds(text, tokens)
        atoms = [_atom(text, token, kinds.get(token["name"], token["kind"])) for token in tokens]
        if sum("**" in (token["many"], token["kind"]) for token in tokens) > 1:
            raise PatternError(f"'{text}': '**' may stand once in a pattern")
        engine = _choose_engine(text, tokens, kinds)
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
        return _compile_linear(self.text, self._source).fullmatch

    @cached_property
    def _ends(self) -> tuple[str, str] | None:
        """The literal text before the first placeholder and after the last; None where there is no placeholder."""
        tokens = list(_TOKEN.finditer(self.text))
        return (self.text[: tokens[0].start()], self.text[tokens[-1].end() :]) if tokens else None

    @cached_property
    def choices(self) -> Mapping[str, tuple[str, ...]]:
        """The texts that each placeholder lists, as `{l:a|b}` does; none for one that lists none."""
        kinds = _kinds(self.text, list(_TOKEN.finditer(self.text)))
        listed = {name: kind for name, kind in kinds.items() if kind and "|" in kind and not kind.startswith("/")}
        return {name: tuple(dict.fromkeys(listed[name].split("|"))) if name in listed else () for name in self.names}

    def check(self) -> None:
        """Compile the pattern now. Raises PatternError where the regex of a placeholder cannot be read."""
        if self._ends is not None:
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

    def matches(self, keys: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Give each key that matches, with the texts of its placeholders."""
        if self._ends is None:
            if self.text in keys:
                yield self.text, {}
            return
        start, end = self._ends
        if isinstance(keys, Searchable):
            found = keys.between(start, end)
        else:
            found = [key for key in keys if key.startswith(start) and key.endswith(end)]
        for key in found:
            if (bound := self.match(key)) is not None:
                yield key, bound

    def __str__(self) -> str:
        return self.text


def _compile_linear(text: str, source: str) -> re.Pattern[str]:
    """Compile for RE2. Raises PatternError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    try:
        return cast("re.Pattern[str]", re2.compile(source, options))
    except re2.error as error:
        reason = error.args[0] if error.args else error
        message = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise PatternError(f"'{text}': {message}") from error


def _kinds(text: str, tokens: Sequence[re.Match[str]]) -> dict[str, str | None]:
    """Give what each name may stand for: one of its uses says so, and all agree."""
    kinds: dict[str, str | None] = {}
    for token in tokens:
        name, kind = token["name"], token["kind"]
        if name and kinds.setdefault(name, kind) is None:
            kinds[name] = kind
        if name and kind not in (None, kinds[name]):
            raise PatternError(f"'{text}': '{name}' stands for '{kinds[name]}' and for '{kind}'", hint="say it once")
    return kinds


def _atom(text: str, token: re.Match[str], kind: str | None) -> str:
    """Give the regular expression of one wildcard or placeholder."""
    if token["stray"]:
        raise PatternError(f"'{text}': a stray '{token['stray']}'", hint="a placeholder reads {name}")
    if "**" in (token["many"], token["kind"]):
        before, after = text[: token.start()], text[token.end() :]
        if (not before.endswith(".") and before) or (not after.startswith(".") and after):
            raise PatternError(f"'{text}': '{token[0]}' must be a whole segment", hint="use '*' inside a segment")
        return _MANY
    if token["one"] or kind is None:
        return _ONE
    if kind == "**":
        return _MANY
    if kind == "int":
        return "[0-9]+"
    if kind.startswith("/") and kind.endswith("/") and len(kind) > 2:
        _compile_linear(text, kind[1:-1])  # alone, so that a stray bracket cannot pair with one of ours
        return f"(?:{kind[1:-1]})"
    if "|" in kind:
        return "|".join(re.escape(choice) for choice in dict.fromkeys(kind.split("|")))
    raise PatternError(
        f"'{text}': '{token[0]}' is no placeholder", hint="write {x}, {x:int}, {x:**}, {x:a|b} or {x:/regex/}"
    )


def _choose_engine(text: str, tokens: Sequence[re.Match[str]], kinds: Mapping[str, str | None]) -> Literal["re", "re2"]:
    """Choose RE2 where backtracking could take more than quadratic time.

    Only `re` knows back-references, so a name used twice gets one degree more before it is left.
    """
    if any(kind and kind.startswith("/") for kind in kinds.values()):
        return "re2"
    seen: set[str] = set()

    def mark(token: re.Match[str]) -> str:
        """Stand one star for a part that ends at a dot, two for one that may hold dots, none for a repetition."""
        if token["name"] in seen:
            return ""
        if token["name"]:
            seen.add(token["name"])
        return "**" if "**" in (token["many"], token["kind"]) or "." in (token["kind"] or "") else "*"

    loose = sum(max(0, segment.count("*") - 1) for segment in _TOKEN.sub(mark, text).split("."))
    repeats = len(seen) < sum(token["name"] is not None for token in tokens)
    return "re2" if loose > 1 + repeats else "re"


def placeholders_of(text: str) -> dict[str, str | None] | None:
    """Give the kind of each placeholder in a pattern's text; None where a wildcard has no name."""
    tokens = list(_TOKEN.finditer(text))
    return _kinds(text, tokens) if all(token["name"] for token in tokens) else None


def put_for_placeholders(text: str, texts: Mapping[str, str]) -> str:
    """Replace each placeholder of a pattern's text."""
    return _TOKEN.sub(lambda token: texts[token["name"]], text)
