"""Write a recipe as YAML, each rule under a line that says what it rests on."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from ckptfix.inference.link import Link

_WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z_]([\w. -]*[\w-])?")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_MOST_REASONS = 2


def write_recipe(values: Mapping[str, object], remarks: Sequence[str]) -> str:
    """Give the text of a recipe. `remarks` has one line for each rule."""
    lines = [f"ckptfix: {values['ckptfix']}"]
    if values.get("description"):
        lines.append(f"description: {_scalar(values['description'])}")
    variables = values.get("vars")
    if isinstance(variables, Mapping):
        lines.append("vars:")
        for name, value in variables.items():
            lines += textwrap.wrap(
                f"{name}: {_flow(value)}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    if values.get("source"):
        lines.append(f"source: {_flow(values['source'])}")
    rules = values.get("rules")
    if not isinstance(rules, list) or not rules:
        return "\n".join([*lines, "rules: []", ""])
    lines.append("rules:")
    for rule, remark in zip(rules, remarks, strict=True):
        lines += [f"  # {remark}", *_rule(rule)]
    return "\n".join([*lines, ""])


def remark(links: Sequence[Link]) -> str:
    """Say in one line what links rest on, and how sure the least sure of them is."""
    reasons = Counter(" ".join(link.why.split()) for link in links if link.why.strip())
    shown = [reason for reason, _ in reasons.most_common(_MOST_REASONS)]
    if len(reasons) > len(shown):
        shown.append(f"{len(reasons) - len(shown)} more")
    sure = f"confidence {min(link.confidence for link in links):.2f}"
    return "; ".join([*shown, sure])


def _rule(rule: Mapping[str, object]) -> list[str]:
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
            lines.append("    map:")
            for key, new in value.items():
                lines += _pair(json.dumps(key, ensure_ascii=False), json.dumps(new, ensure_ascii=False))
        elif isinstance(value, list) and len(line) > _WIDTH:
            lines += [f"    {name}:", *(f"      - {_scalar(entry)}" for entry in value)]
        else:
            lines.append(line)
    return lines


def _pair(key: str, new: str) -> list[str]:
    line = f"      {key}: {new}"
    return [line] if len(line) <= _WIDTH else [f"      {key}:", f"        {new}"]


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
