"""The answer of `suggest`: a recipe, and what becomes of every key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

from msgspec import Struct, field
from msgspec.structs import replace
from typing_extensions import TypedDict

from ckptfix.errors import Unresolved
from ckptfix.formats import Checkpoint, wrapper_prefixes
from ckptfix.inference.comments import write_comments
from ckptfix.inference.company import works_for
from ckptfix.inference.generalise import generalise, write_rules
from ckptfix.inference.link import Evidence, Link, Open
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import Ambiguity, Answer, settle
from ckptfix.inference.summary import Group, group_open
from ckptfix.tensors import Manifest


class ResolvedDocument(TypedDict):
    """One entry of `resolved`: what makes a target key, as `Resolved` says."""

    target: str
    sources: list[str]
    layout: str | None
    sizes: Mapping[str, int]
    resize: Mapping[str, object] | None
    evidence: list[str]
    confidence: float
    why: str


class AmbiguousDocument(TypedDict):
    """One entry of `ambiguous`: `beside` are source keys besides the candidates that the reason is about."""

    target: str
    candidates: list[str]
    why: str
    beside: list[str]


class UnresolvedDocument(TypedDict):
    """One entry of `unresolved`: `beside` are the source keys that the reason is about."""

    target: str
    why: str
    beside: list[str]


class SuggestionDocument(TypedDict):
    """The document of `suggest --json`. `filled` are target keys, `unused` are source keys."""

    schema_version: int
    recipe: Mapping[str, object]
    resolved: list[ResolvedDocument]
    filled: list[str]
    ambiguous: list[AmbiguousDocument]
    unresolved: list[UnresolvedDocument]
    unused: list[str]
    notes: list[str]


class Resolved(Struct, frozen=True):
    """What makes a target key: source keys, by a layout and a resize where there are any, and what that rests on.

    A layout may make other target keys as well. Without sources, the key is filled with a number or copied.
    """

    why: str
    sources: tuple[str, ...] = ()
    layout: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    resize: Mapping[str, object] | None = None
    evidence: frozenset[Evidence] = frozenset()
    confidence: float = 1.0

    @classmethod
    def by(cls, link: Link) -> Resolved:
        """Tell what a link says of each of its target keys."""
        return cls(
            why=link.reason,
            sources=link.source_keys,
            layout=link.layout,
            sizes=link.sizes,
            resize=link.resize,
            evidence=link.evidence,
            confidence=link.confidence,
        )

    def to_json(self, target: str) -> ResolvedDocument:
        """Give the entry of a target key."""
        return {
            "target": target,
            "sources": list(self.sources),
            "layout": self.layout,
            "sizes": dict(self.sizes),
            "resize": self.resize,
            "evidence": sorted(self.evidence),
            "confidence": self.confidence,
            "why": self.why,
        }


class Suggestion(Struct, frozen=True):
    """A recipe as plain values and as text, and what it does of the target's keys.

    `resolved` have a source, `filled` keep their initial value; for `ambiguous` several sources or layouts would do,
    and `unresolved` (key to reason) have none. `unused` are the source keys that the recipe drops or leaves.
    `share_new` is how much of the target's elements is filled, 0 to 1, where that is more than one layer.
    """

    recipe: Mapping[str, object]
    text: str
    rules: int
    resolved: Mapping[str, Resolved]
    filled: tuple[str, ...]
    ambiguous: tuple[Ambiguity, ...]
    unresolved: Mapping[str, Open]
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    share_new: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every target key is resolved or filled."""
        return not self.ambiguous and not self.unresolved

    @property
    def open(self) -> tuple[Group, ...]:
        """What is open, by the reason."""
        return group_open(self.ambiguous, self.unresolved)

    def raise_for_doubts(self) -> None:
        """Raise Unresolved unless every target key is resolved or filled."""
        if self.is_complete:
            return
        first = self.ambiguous[0].target if self.ambiguous else next(iter(self.unresolved))
        why = self.ambiguous[0].why if self.ambiguous else self.unresolved[first].why
        counts = f"{len(self.ambiguous)} ambiguous and {len(self.unresolved)} unresolved keys"
        parity = ", or --parity where the source's architecture can be built" if self.ambiguous else ""
        raise Unresolved(
            f"no certain recipe: {counts}, first '{first}': {why}",
            hint="`ckptfix suggest ... -o recipe.yaml` writes what is certain; complete it by hand, or give it "
            f"--example with the same weights already converted{parity}",
        )

    def to_json(self) -> SuggestionDocument:
        """Give the document of `suggest --json`."""
        return {
            "schema_version": 2,
            "recipe": self.recipe,
            "resolved": [resolved.to_json(key) for key, resolved in self.resolved.items()],
            "filled": list(self.filled),
            "ambiguous": [
                {
                    "target": doubt.target,
                    "candidates": list(doubt.candidates),
                    "why": doubt.why,
                    "beside": list(doubt.beside),
                }
                for doubt in self.ambiguous
            ],
            "unresolved": [
                {"target": key, "why": reason.why, "beside": list(reason.beside)}
                for key, reason in self.unresolved.items()
            ],
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
    known = Manifest(want.tensors, kinds=want.kinds, tied=want.tied) if "classes" in without else want
    return settle(have, known, allowed, None if "values" in without else source)


def write_suggestion(
    answer: Answer,
    have: Manifest,
    want: Manifest,
    description: str,
    *,
    last: Sequence[Mapping[str, object]] = (),
    numbers: Mapping[str, float] | None = None,
    select: str | None = None,
) -> Suggestion:
    """Write the recipe of an answer, `last` its last rules. What is open is listed below it, as comments.

    `numbers` are what the last rules fill target keys with, `select` is the state dict to select where the file has
    several.
    """
    prefixes = wrapper_prefixes(have)
    dropped = _list_dropped(answer, have, "".join(prefixes), numbers or {})
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
    rules = [*cast("list[object]", written.values["rules"]), *last]
    text = written.text if written.rules or not last else written.text.replace("rules: []", "rules:")
    return Suggestion(
        recipe={**written.values, "rules": rules},
        text=text + write_rules(last) + "".join(write_comments(answer, have, want, "".join(prefixes), dropped)),
        rules=len(rules),
        resolved=_resolve(answer, want, numbers or {}),
        filled=tuple(answer.filled),
        ambiguous=tuple(answer.ambiguous),
        unresolved=answer.unresolved,
        unused=tuple(answer.unused),
        notes=tuple(answer.notes),
        share_new=_share_new(answer.filled, want),
    )


def _share_new(filled: Iterable[str], want: Manifest) -> float | None:
    """Tell how much of the target is filled, parameters of more than one layer; None where it is a head or less."""
    new = [key for key in filled if want.kinds.get(key) != "buffer" and want[key].dtype.kind == "float"]
    if len(set(map(works_for, new))) < 2:
        return None
    return sum(want[key].numel for key in new) / want.numel


def _resolve(answer: Answer, want: Manifest, numbers: Mapping[str, float]) -> dict[str, Resolved]:
    """Tell what makes each target key that is not open, in the target's order."""
    found = {key: Resolved.by(link) for link in answer.links for key in link.target_keys}
    for key, first in answer.copied.items():
        found[key] = replace(found.get(first, Resolved("")), why=f"a copy of '{first}'")
    for key, number in numbers.items():
        found[key] = Resolved(f"{number:g} throughout", evidence=frozenset({"values"}))
    return {key: found[key] for key in want if key in found and key not in answer.unresolved}


def _list_dropped(answer: Answer, have: Manifest, prefix: str, numbers: Iterable[str]) -> list[str]:
    """List the source keys of no use.

    What something open may be made of stays, for the user to decide, unless a made key has its name.
    """
    used = {key for link in answer.links for key in link.source_keys}
    made = {key for link in answer.links for key in link.target_keys} | {*answer.copied, *answer.filled, *numbers}
    open_keys = {key for doubt in answer.ambiguous for key in (*doubt.candidates, *doubt.beside)}
    open_keys |= {key for reason in answer.unresolved.values() for key in reason.beside}
    kept = {key for key in open_keys if key.removeprefix(prefix) not in made}
    return [key for key in have if key not in used and key not in kept]
