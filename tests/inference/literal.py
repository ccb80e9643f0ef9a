"""Write links as the recipe that says them one by one, without anything generalised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ckptfix.inference.example import ExampleResult, Taken
from ckptfix.inference.link import Link, Term
from ckptfix.tensors import Manifest

_NUMBER = re.compile(r"[0-9]+")
Rules = list[dict[str, Any]]


def literal_recipe(found: ExampleResult, have: Manifest) -> dict[str, Any]:
    """Move every source out of the way first, so that old and new keys never meet."""
    rank = {key: len(spec.shape) for key, spec in have.items()}
    old = {key: f"old.{key}" for link in found.links for key in link.source_keys}
    rules: Rules = [{"op": "drop", "keys": list(found.unused)}] if found.unused else []
    rules.append({"op": "rename", "map": old | {taken.source: f"old.{taken.source}" for taken in found.taken}})
    for link in found.links:
        rules += link_rules(link)
    for taken in found.taken:
        rules += taken_rules(taken, rank[taken.source])
    rules += [{"op": "drop", "keys": f"old.{key}"} for key in {taken.source for taken in found.taken}]
    rules += [{"op": "copy", "from": other, "to": key} for key, other in found.copies.items()]
    rules += [{"op": "fill", "keys": key, "value": value} for key, value in found.fills.items()]
    rules += [{"op": "cast", "keys": key, "dtype": dtype} for key, dtype in found.casts.items()]
    return {"ckptfix": 1, "rules": rules}


def link_rules(link: Link) -> Rules:
    sources = [f"old.{pattern(term)}" for term in link.sources]
    targets = [pattern(term) for term in link.targets]
    if link.layout is None:
        rules: Rules = [{"op": "rename", "map": {sources[0]: targets[0]}}]
    else:
        sizes: Mapping[str, Any] = {"sizes": dict(link.sizes)} if link.sizes else {}
        rules = [{"op": "rearrange", "from": sources, "to": targets, "layout": link.layout, **sizes}]
    return rules + ([{"op": "resize", "keys": targets, **link.resize}] if link.resize else [])


def taken_rules(taken: Taken, rank: int) -> Rules:
    names = [f"a{axis}" for axis in range(rank)]
    axis, index = names[taken.axis], list(taken.rows)
    return [
        {"op": "copy", "from": f"old.{taken.source}", "to": taken.target},
        {"op": "take", "keys": taken.target, "layout": " ".join(names), "axis": axis, "index": index},
    ]


def pattern(term: Term) -> str:
    """Put the axis in the place of the number that counts."""
    if term.axis is None:
        return term.keys[0]
    for found in _NUMBER.finditer(term.keys[0]):
        text = f"{term.keys[0][: found.start()]}{{}}{term.keys[0][found.end() :]}"
        if [text.format(number) for number in range(len(term.keys))] == list(term.keys):
            return text.format(f"{{{term.axis}}}")
    raise AssertionError(term)
