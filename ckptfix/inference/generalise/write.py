"""Write a recipe as YAML, with comments that say what it rests on."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby

from ckptfix.inference.generalise.remarks import Remarks

_WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z_]([\w. -]*[\w-])?")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_LONG_MAP = 8
"""Pairs of a map from which on they are set apart in groups."""


def write_recipe(values: Mapping[str, object], remarks: Remarks) -> str:
    """Give the text of a recipe with its comments."""
    lines = [f"ckptfix: {values['ckptfix']}"]
    if values.get("description"):
        lines.append(f"description: {_scalar(values['description'])}")
    variables = values.get("vars")
    if isinstance(variables, Mapping):
        lines.append("vars:")
        for name, value in variables.items():
            lines += _wrapped(f"{name}: {_flow(value)}", "  ")
    if values.get("source"):
        lines.append(f"source: {_flow(values['source'])}")
    rules = values.get("rules")
    if not isinstance(rules, list) or not rules:
        return "\n".join([*lines, "rules: []", ""])
    lines += [f"# {remarks.whole}"] if remarks.whole else []
    lines.append("rules:")
    for rule, remark, of_lines in zip(rules, remarks.rules, remarks.lines, strict=True):
        lines += [*([f"  # {remark}"] if remark else []), *_rule(rule, of_lines)]
    return "\n".join([*lines, ""])


def write_rules(rules: Iterable[Mapping[str, object]]) -> str:
    """Give the text of more rules, to stand below a recipe that has some."""
    return "".join(f"{line}\n" for rule in rules for line in _rule(rule, ()))


def _wrapped(text: str, indent: str) -> list[str]:
    """Break a line between the entries of a list or a map."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rule(rule: Mapping[str, object], remarks: Sequence[str]) -> list[str]:
    short = f"  - {_flow(rule)}"
    pairs = rule.get("map")
    if len(short) <= _WIDTH and not (isinstance(pairs, Mapping) and len(pairs) > 1):
        return [short]
    lines = [f"  - op: {rule['op']}"]
    for name, value in rule.items():
        if name == "op":
            continue
        line = f"    {name}: {_flow(value)}"
        if name == "map" and isinstance(value, Mapping):
            lines += ["    map:", *_pairs(value, remarks)]
        elif isinstance(value, list) and len(line) > _WIDTH and not isinstance(value[0], str):
            lines += _wrapped(f"{name}: {_flow(value)}", "    ")
        elif isinstance(value, list) and len(line) > _WIDTH:
            lines += [f"    {name}:", *(f"      - {_scalar(entry)}" for entry in value)]
        else:
            lines.append(line)
    return lines


def _pairs(pairs: Mapping[str, str], remarks: Sequence[str]) -> Iterator[str]:
    begins = _group_begins(list(pairs))
    for place, (key, new) in enumerate(pairs.items()):
        if place in begins:
            yield ""
        old, made = json.dumps(key, ensure_ascii=False), json.dumps(new, ensure_ascii=False)
        line = f"      {old}: {made}"
        lines = [line] if len(line) <= _WIDTH else [f"      {old}:", f"        {made}"]
        remark = f"# {remarks[place]}" if place < len(remarks) and remarks[place] else ""
        if remark and len(lines[-1]) + len(remark) + 2 <= _WIDTH:
            lines[-1] += f"  {remark}"
        elif remark:
            yield f"      {remark}"
        yield from lines


def _group_begins(keys: Sequence[str]) -> set[int]:
    """Tell before which pairs of a long map a line stays empty: where blocks begin and where they end."""
    runs: list[list[str]] = []
    for _, run in groupby(keys, key=_blocks):
        members = list(run)
        if runs and (len(members) == 1 or len(runs[-1]) == 1):
            runs[-1] += members
        else:
            runs.append(members)
    return set(accumulate(map(len, runs[:-1]))) if len(keys) >= _LONG_MAP else set()


def _blocks(key: str) -> str | None:
    """Give what stands before the number that counts blocks; None where a key names a single module."""
    before, brace, after = key.partition("{")
    return before if brace and "." in after.partition("}")[2] else None


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    """Write a text plainly where YAML reads it back as that text, else in quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
