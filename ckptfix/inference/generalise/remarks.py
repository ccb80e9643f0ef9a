"""Say what the lines of a recipe rest on: once what holds for most of them, and at each line what differs from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from ckptfix.inference.generalise.draft import Draft
from ckptfix.inference.link import Evidence, Link, name_evidence

_SURE = 0.9
"""The confidence below which a line says its own."""


class Remarks(Struct, frozen=True):
    """Comments: one for the whole recipe, one above each rule, one for each line of each rule; most are empty."""

    whole: str
    rules: Sequence[str]
    lines: Sequence[Sequence[str]]


class Ground(Struct, frozen=True):
    """What a line rests on. `kinds` are the kinds of evidence that all its links have, if nothing more is said."""

    text: str
    kinds: frozenset[Evidence]
    confidence: float


def make_remarks(drafts: Sequence[Draft]) -> Remarks:
    """Write the comments of rules."""
    grounds = [[_ground(links) for links in draft.links] for draft in drafts]
    every = [ground for rule in grounds for ground in rule]
    if not every:
        return Remarks("", [draft.note for draft in drafts], [[] for _ in drafts])
    basis = _basis(every)
    lines = [[_difference(ground, basis) for ground in rule] for rule in grounds]
    differ = any(remark for rule in lines for remark in rule)
    least, most = (f"{bound:.2f}" for bound in (basis.confidence, max(ground.confidence for ground in every)))
    sure = f"confidence {least}{' or more' if most != least else ''}"
    whole = f"each line{' that says nothing else' if differ else ''}: {basis.text}; {sure}"
    shared = [_shared(rule) for rule in lines]
    return Remarks(
        whole,
        [remark or ("" if rule else draft.note) for remark, rule, draft in zip(shared, lines, drafts, strict=True)],
        [[] if remark else rule for remark, rule in zip(shared, lines, strict=True)],
    )


def _ground(links: Sequence[Link]) -> Ground:
    confidence = min(link.confidence for link in links)
    if not any(link.why for link in links):
        kinds: frozenset[Evidence] = frozenset.intersection(*(link.evidence for link in links))
        return Ground(name_evidence(kinds), kinds, confidence)
    reasons = dict.fromkeys(" ".join(link.reason.split()) for link in links)
    return Ground("; ".join(reason for reason in reasons if reason), frozenset(), confidence)


def _basis(grounds: Sequence[Ground]) -> Ground:
    """Choose what is said of the whole: names are in it where they speak for most lines."""
    named = [ground for ground in grounds if "names" in ground.kinds]
    usual = named if 2 * len(named) >= len(grounds) else [ground for ground in grounds if ground.kinds]
    sure = [ground.confidence for ground in grounds if ground.confidence >= _SURE]
    confidence = min(sure or [ground.confidence for ground in grounds])
    kinds: frozenset[Evidence] = frozenset.intersection(*(ground.kinds for ground in usual)) if usual else frozenset()
    if kinds:
        return Ground(name_evidence(kinds), kinds, confidence)
    [(text, _)] = Counter(ground.text for ground in grounds).most_common(1)
    return Ground(text, frozenset(), confidence)


def _difference(ground: Ground, basis: Ground) -> str:
    rests_on_it = ground.text == basis.text or (basis.kinds and basis.kinds <= ground.kinds)
    unsure = f"confidence {ground.confidence:.2f}" if ground.confidence < basis.confidence else ""
    return "; ".join(part for part in ("" if rests_on_it else ground.text, unsure) if part)


def _shared(remarks: Sequence[str]) -> str:
    """Give the comment of a whole rule, where all its lines have the same."""
    return remarks[0] if len(set(remarks)) == 1 else ""
