"""The answer of `suggest`: a recipe, and what becomes of every key."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, cast

from ckptfix.errors import Unresolved
from ckptfix.formats import Checkpoint, wrapper_prefixes
from ckptfix.inference.generalise import generalise
from ckptfix.inference.link import Evidence, Link
from ckptfix.inference.match import Allowed
from ckptfix.inference.settle import Ambiguity, Answer, settle
from ckptfix.tensors import Manifest

_MOST_OPEN = 6
"""Keys of one reason that the comments below a recipe name."""


class AmbiguousDocument(TypedDict):
    """One entry of `ambiguous`."""

    target: str
    candidates: list[str]
    why: str


class SuggestionDocument(TypedDict):
    """The document of `suggest --json`. `unused` are source keys, all others target keys."""

    schema_version: int
    recipe: Mapping[str, object]
    resolved: list[str]
    filled: list[str]
    ambiguous: list[AmbiguousDocument]
    unresolved: list[str]
    unused: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Suggestion:
    """A recipe as plain values and as text, and what it does of the target's keys.

    `resolved` have a source, `filled` keep their initial value; for `ambiguous` several sources or layouts would do,
    and `unresolved` (key to reason) have none. `unused` are the source keys that the recipe drops or leaves.
    """

    recipe: Mapping[str, object]
    text: str
    rules: int
    resolved: tuple[str, ...]
    filled: tuple[str, ...]
    ambiguous: tuple[Ambiguity, ...]
    unresolved: Mapping[str, str]
    unused: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every target key is resolved or filled."""
        return not self.ambiguous and not self.unresolved

    @property
    def doubts(self) -> dict[str, list[str]]:
        """What is open: the target keys, by the reason."""
        return group_doubts(self.ambiguous, self.unresolved)

    def raise_for_doubts(self) -> None:
        """Raise Unresolved unless every target key is resolved or filled."""
        if self.is_complete:
            return
        first = self.ambiguous[0].target if self.ambiguous else next(iter(self.unresolved))
        why = self.ambiguous[0].why if self.ambiguous else self.unresolved[first]
        counts = f"{len(self.ambiguous)} ambiguous and {len(self.unresolved)} unresolved keys"
        raise Unresolved(
            f"no certain recipe: {counts}, first '{first}': {why}",
            hint="`ckptfix suggest ... -o recipe.yaml` writes what is certain; complete it by hand, or give --example",
        )

    def to_json(self) -> SuggestionDocument:
        """Give the document of `suggest --json`."""
        return {
            "schema_version": 1,
            "recipe": self.recipe,
            "resolved": list(self.resolved),
            "filled": list(self.filled),
            "ambiguous": [
                {"target": doubt.target, "candidates": list(doubt.candidates), "why": doubt.why}
                for doubt in self.ambiguous
            ],
            "unresolved": list(self.unresolved),
            "unused": list(self.unused),
            "notes": list(self.notes),
        }


def suggest_recipe(have: Manifest, want: Manifest, description: str, without: Collection[Evidence] = ()) -> Suggestion:
    """Infer a recipe from the names and shapes of both sides. Reads no tensor and builds no model."""
    return write_suggestion(settle_without(have, want, without), have, want, description)


def suggest_for(source: Checkpoint, want: Manifest, description: str, without: Collection[Evidence] = ()) -> Suggestion:
    """Infer a recipe from names and shapes, and from values where these leave norms open. Builds no model.

    Raises what reading raises.
    """
    answer = settle_without(source.manifest, want, without, source)
    return write_suggestion(answer, source.manifest, want, description, select=source.choice)


def settle_without(
    have: Manifest, want: Manifest, without: Collection[Evidence], source: Checkpoint | None = None
) -> Answer:
    """Account for every key from names and shapes, and the source's values if given; some evidence left aside."""
    allowed = Allowed("names" not in without, "shapes" not in without, "order" not in without)
    known = replace(want, owners={}, modules={}) if "classes" in without else want
    return settle(have, known, allowed, None if "values" in without else source)


def suggest_by_example(source: Checkpoint, example: Checkpoint, want: Manifest, description: str) -> Suggestion:
    """Learn a recipe from the values of a checkpoint that was already converted; it serves other sizes too."""
    from ckptfix.inference.example import find_links

    found = find_links(source, example)
    links = [*found.links, *(Link.rename(taken.source, taken.target, why="rows of it") for taken in found.taken)]
    unresolved = dict.fromkeys(found.unexplained, "its values come from no tensor of the source")
    unresolved |= {key: "the example lacks it" for key in want if key not in example.manifest}
    unresolved |= {
        key: f"the example has the shape {list(spec.shape)}, the target {list(want[key].shape)}"
        for key, spec in example.manifest.items()
        if key in want and want[key].shape != spec.shape
    }
    answer = Answer(links, dict(found.copies), [], [], unresolved, list(found.unused), list(found.notes))
    rules: list[dict[str, object]] = [
        {"op": "fill", "keys": key, "value": value, "when": "missing"} for key, value in found.fills.items()
    ]
    for taken in found.taken:
        names = [f"a{axis}" for axis in range(len(source.manifest[taken.source].shape))]
        rule: dict[str, object] = {"op": "take", "keys": taken.target, "layout": " ".join(names)}
        rules.append(rule | {"axis": names[taken.axis], "index": list(taken.rows)})
    rules += [{"op": "cast", "keys": key, "dtype": str(dtype)} for key, dtype in found.casts.items()]
    choice = source.choice
    return write_suggestion(
        answer, source.manifest, example.manifest, description, rules, made=found.fills, select=choice
    )


def write_suggestion(
    answer: Answer,
    have: Manifest,
    want: Manifest,
    description: str,
    last: Sequence[Mapping[str, object]] = (),
    made: Iterable[str] = (),
    select: str | None = None,
) -> Suggestion:
    """Write the recipe of an answer, `last` its last rules. What is open is listed below it, as comments.

    `made` are target keys that the last rules make, `select` is the state dict to select where the file has several.
    """
    prefixes = wrapper_prefixes(have)
    used = {key for link in answer.links for key in link.source_keys}
    taken = {key for link in answer.links for key in link.target_keys}
    open_sources = {key for doubt in answer.ambiguous for key in doubt.candidates} - used
    # A candidate stays, for the user to decide, unless its name is what another tensor is given.
    in_the_way = {key for key in open_sources if key.removeprefix("".join(prefixes)) in taken}
    dropped = [key for key in have if key not in used and (key not in open_sources or key in in_the_way)]
    written = generalise(
        answer.links,
        have,
        want,
        filled=answer.filled,
        copied=answer.copied,
        dropped=dropped,
        source=({"select": select} if select else {}) | ({"strip": list(prefixes)} if prefixes else {}),
        description=description,
    )
    resolved = {key for link in answer.links for key in link.target_keys} | set(answer.copied) | set(made)
    values = dict(written.values)
    values["rules"] = [*cast("list[object]", values["rules"]), *last]
    text = written.text
    if last and not written.rules:
        text = text.replace("rules: []", "rules:")
    text += "".join(f"  - {json.dumps(rule)}\n" for rule in last)
    return Suggestion(
        recipe=values,
        text=text + "".join(_comments(answer)),
        rules=written.rules + len(last),
        resolved=tuple(key for key in want if key in resolved and key not in answer.unresolved),
        filled=tuple(answer.filled),
        ambiguous=tuple(answer.ambiguous),
        unresolved=answer.unresolved,
        unused=tuple(answer.unused),
        notes=tuple(answer.notes),
    )


def group_doubts(ambiguous: Iterable[Ambiguity], unresolved: Mapping[str, str]) -> dict[str, list[str]]:
    """Give what is open, the target keys of each reason together."""
    reasons: dict[str, list[str]] = {}
    for doubt in ambiguous:
        reasons.setdefault(f"ambiguous, {doubt.why}", []).append(doubt.target)
    for key, why in unresolved.items():
        reasons.setdefault(f"unresolved, {why}", []).append(key)
    return reasons


def _comments(answer: Answer) -> Iterator[str]:
    """Say in comments below the recipe what is open, with the candidates."""
    candidates = {doubt.target: f" from {' or '.join(doubt.candidates[:3])}" for doubt in answer.ambiguous}
    for reason, keys in group_doubts(answer.ambiguous, answer.unresolved).items():
        yield f"# {reason} ({len(keys)} key{'s' * (len(keys) > 1)}):\n"
        yield from (f"#   {key}{candidates.get(key, '')}\n" for key in keys[:_MOST_OPEN])
        if len(keys) > _MOST_OPEN:
            yield "#   ...\n"
