"""Two sides with links between them, and the recipe of one rule for each link to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckptfix.inference.generalise import Written, generalise
from ckptfix.inference.link import Link, Term
from ckptfix.planning import Plan, make_plan
from ckptfix.recipe import load_recipe
from tests.language.making import manifest

QKV = "(q+k+v) ... -> q ..., k ..., v ..."


@dataclass
class Case:
    """Two sides and the links between them, added one by one."""

    have: dict[str, Sequence[int]] = field(default_factory=dict)
    want: dict[str, Sequence[int]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    copied: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    source: dict[str, object] = field(default_factory=dict)

    def rename(self, source: str, target: str, shape: Sequence[int] = (2, 2), **more: Any) -> None:
        self.have[source] = shape
        self.want[target] = shape
        self.links.append(Link.rename(source, target, **{"why": "same place and shape", **more}))

    def module(self, source: str, target: str, parameters: Sequence[str] = ("weight", "bias")) -> None:
        for parameter in parameters:
            self.rename(f"{source}.{parameter}", f"{target}.{parameter}")

    def split(self, source: str, targets: Sequence[str], shape: Sequence[int]) -> None:
        self.have[source] = (shape[0] * len(targets), *shape[1:])
        self.want |= dict.fromkeys(targets, shape)
        terms = tuple(Term.of(target) for target in targets)
        self.links.append(Link((Term.of(source),), terms, QKV, confidence=0.95, why="one tensor three times as high"))

    def drop(self, source: str, shape: Sequence[int] = (2,)) -> None:
        self.have[source] = shape
        self.dropped.append(source)

    def fill(self, target: str, shape: Sequence[int] = (3,)) -> None:
        self.want[target] = shape
        self.filled.append(target)

    def written(self, description: str = "a to b") -> Written:
        return generalise(
            self.links,
            manifest(self.have),
            manifest(self.want),
            filled=self.filled,
            copied=self.copied,
            dropped=self.dropped,
            source=self.source,
            description=description,
        )

    def plan(self, recipe: Mapping[str, Any] | str) -> Plan:
        return make_plan(load_recipe(recipe), manifest(self.have), manifest(self.want))


def one_rule_each(case: Case) -> dict[str, Any]:
    """Write a recipe that has one line for each link. Sources of layouts move out of the way first."""
    away = {key: f"away.{key}" for link in case.links if link.layout for key in link.source_keys}
    moves = {link.source_keys[0]: link.target_keys[0] for link in case.links if not link.layout} | away
    rules: list[dict[str, Any]] = [{"op": "drop", "keys": case.dropped}] if case.dropped else []
    rules += [{"op": "rename", "map": moves}] if moves else []
    for link in case.links:
        if link.layout:
            sides = {"from": [f"away.{text(term)}" for term in link.sources], "to": [*map(text, link.targets)]}
            rules.append({"op": "rearrange", **sides, "layout": link.layout, "sizes": dict(link.sizes)})
        if link.resize:
            rules.append({"op": "resize", "keys": link.target_keys[0], **link.resize})
    rules += [{"op": "fill", "keys": case.filled, "value": "target"}] if case.filled else []
    rules += [{"op": "copy", "from": old, "to": new} for new, old in case.copied.items()]
    return {"ckptfix": 1, "rules": rules}


def text(term: Term) -> str:
    """Write a term whose keys end in the number that counts along its axis."""
    return term.keys[0] if term.axis is None else f"{term.keys[0].removesuffix('0')}{{{term.axis}}}"


def assert_does_as_told(case: Case, written: Written) -> None:
    """Compare with the recipe of one rule for each link, tensor by tensor."""
    got, told = case.plan(written.values), case.plan(one_rule_each(case))
    assert not told.errors
    assert not got.errors
    assert {key: row.expr for key, row in got.rows.items()} == {key: row.expr for key, row in told.rows.items()}
    assert got.is_complete
    assert case.plan(written.text).rows == got.rows


def vit() -> Case:
    case = Case()
    case.rename("cls_token", "vit.embeddings.cls_token")
    case.rename("pos_embed", "vit.embeddings.position_embeddings")
    case.module("patch_embed.proj", "vit.embeddings.patch_embeddings.projection")
    for i in range(12):
        case.module(f"blocks.{i}.norm1", f"vit.layers.{i}.layernorm_before")
        for parameter, shape in {"weight": (4, 4), "bias": (4,)}.items():
            targets = [f"vit.layers.{i}.attention.{part}_proj.{parameter}" for part in "qkv"]
            case.split(f"blocks.{i}.attn.qkv.{parameter}", targets, shape)
        case.module(f"blocks.{i}.attn.proj", f"vit.layers.{i}.attention.o_proj")
        case.module(f"blocks.{i}.norm2", f"vit.layers.{i}.layernorm_after")
        case.module(f"blocks.{i}.mlp.fc1", f"vit.layers.{i}.mlp.fc1")
        case.module(f"blocks.{i}.mlp.fc2", f"vit.layers.{i}.mlp.fc2")
    case.module("norm", "vit.layernorm")
    return case
