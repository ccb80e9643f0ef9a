"""Hold a placeholder of a line that matches too much to digits, or to the texts that it should stand for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ckptfix.inference.generalise.line import Line, own_names
from ckptfix.keys import KeyPattern

_MOST_TEXTS = 24


def narrowed(line: Line, keys: Collection[str]) -> Iterator[Line]:
    """Write the line with one placeholder narrower, so that it still matches the keys that it is meant for."""
    pattern = KeyPattern.parse(line.patterns[0])
    bounds = [bound for _, bound in pattern.matches(keys)]
    for name in own_names(line.patterns):
        if name == "_r" or f"{{{name}:" in line.patterns[0]:
            continue
        values = sorted({bound[name] for bound in bounds}, key=lambda text: (len(text), text))
        if all(value.isdecimal() for value in values):
            yield _with_kind(line, name, "int")
        if 1 < len(values) <= _MOST_TEXTS:
            yield _with_kind(line, name, "|".join(values))


def _with_kind(line: Line, name: str, kind: str) -> Line:
    plain = re.compile(re.escape(f"{{{name}}}"))
    patterns = tuple(plain.sub(f"{{{name}:{kind}}}", pattern, count=1) for pattern in line.patterns)
    return Line(patterns, line.templates, line.covers)
