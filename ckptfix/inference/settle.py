"""From what was matched to an answer for each target key: resolved, filled, ambiguous or unresolved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ckptfix.formats import Checkpoint
from ckptfix.inference.branches import Branches, are_apart, find_branches, find_single
from ckptfix.inference.copies import keep_one
from ckptfix.inference.doubts import Doubt, find_doubts
from ckptfix.inference.infer import Inference, infer
from ckptfix.inference.lexicon import concept
from ckptfix.inference.link import Link
from ckptfix.inference.match import Allowed
from ckptfix.inference.names import read_name, tail
from ckptfix.inference.reading import blocks_of, template
from ckptfix.inference.values import tell_norms
from ckptfix.inference.vocabulary import is_token_table
from ckptfix.tensors import Manifest


@dataclass(frozen=True)
class Ambiguity:
    """A target key for which several sources, or several layouts, would do."""

    target: str
    candidates: tuple[str, ...]
    why: str


@dataclass
class Answer:
    """What becomes of every key of both sides.

    `copied` maps a target key to the one that it repeats, `unresolved` a target key to the reason why no source was
    found for it. `notes` say what was taken for granted.
    """

    links: list[Link]
    copied: dict[str, str] = field(default_factory=dict)
    filled: list[str] = field(default_factory=list)
    ambiguous: list[Ambiguity] = field(default_factory=list)
    unresolved: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def settle(have: Manifest, want: Manifest, allowed: Allowed, source: Checkpoint | None = None) -> Answer:
    """Infer the links, then account for every key that none of them makes.

    With the `source` that `have` describes, values tell what else leaves open. Raises what reading it raises.
    """
    single = keep_one(have, want)
    found = infer(single.kept, want, allowed)
    if source is not None:
        found = tell_norms(found, source, single.kept, want)
    used = {key for link in found.links for key in link.source_keys}
    answer = Answer(found.links, notes=[note for note, keys in single.notes.items() if used & keys])
    for why, keys in single.doubts.items():
        _doubt(answer, _about(keys, why))
    for why_of in find_doubts(found, single.kept, want):
        _doubt(answer, why_of)
    branches = find_branches(want)
    for equal in list(find_single(branches, answer.links)):
        _leave_open(answer, found, equal)
    for guess in found.guesses:
        for key in guess.link.target_keys:
            if key in found.left_targets:
                answer.ambiguous.append(Ambiguity(key, guess.candidates, guess.why))
                del found.left_targets[key]
    _repeat(answer, found, want, branches)
    _fill(answer, found, want)
    used = {key for link in answer.links for key in link.source_keys}
    used |= {key for doubt in answer.ambiguous for key in doubt.candidates}
    answer.unused = [key for key in have if key not in used]
    return answer


def _leave_open(answer: Answer, found: Inference, branches: Branches) -> None:
    """Leave all of equal branches open: those that have no source, and the one that took it."""
    one = f"the target has {len(branches)} of these, as {', '.join(map(repr, branches))}, and the checkpoint one"
    keys = frozenset().union(*branches.values())
    _doubt(answer, _about(keys, f"{one}: copy it, or fill the others"))
    guessed = {key for guess in found.guesses for key in guess.link.target_keys}
    for key in [key for key in found.left_targets if key in keys - guessed]:
        answer.unresolved[key] = one
        del found.left_targets[key]


def _about(keys: frozenset[str], why: str) -> Doubt:
    """Doubt the links from or to some keys."""

    def why_of(link: Link) -> dict[str, str]:
        is_about = not keys.isdisjoint(link.source_keys + link.target_keys)
        return dict.fromkeys(link.target_keys, why) if is_about else {}

    return why_of


def _doubt(answer: Answer, why_of: Doubt) -> None:
    """Take back the links that there is a reason to doubt: their targets are ambiguous."""
    kept: list[Link] = []
    for link in answer.links:
        if reasons := why_of(link):
            answer.ambiguous += [Ambiguity(key, link.source_keys, why) for key, why in reasons.items()]
        else:
            kept.append(link)
    answer.links = kept


def _repeat(answer: Answer, found: Inference, want: Manifest, branches: Sequence[Branches]) -> None:
    """Copy what is tied: by the target's own word, or a table of tokens or an output layer that has no source.

    Equal branches have tables of their own.
    """
    made = {key for link in answer.links for key in link.target_keys}
    for group in want.tied:
        first = next((key for key in group if key in made), None)
        for key in group:
            if first is not None and key in found.left_targets:
                answer.copied[key] = first
                del found.left_targets[key]
    tables = {key for key, spec in want.items() if is_token_table(key, spec, want.owners.get(key, ""))}
    rows = {want[key].shape[0] for key in tables}
    for key, spec in list(found.left_targets.items()):
        if not spec.shape or spec.shape[0] not in rows or not (key in tables or _is_output(key)):
            continue
        like = [other for other in made if want[other].shape == spec.shape and (other in tables or key not in tables)]
        if len(like) == 1 and not any(are_apart((key, like[0]), equal) for equal in branches):
            answer.copied[key] = like[0]
            answer.notes.append(f"'{key}' has no source of its own; it is taken to be tied to '{like[0]}'")
            del found.left_targets[key]


def _is_output(key: str) -> bool:
    return bool({"classifier", "decoder", "out"} & {concept(word) for word in read_name(key).words})


def _fill(answer: Answer, found: Inference, want: Manifest) -> None:
    """Keep the initial value of what has no counterpart; what a tensor that is left might make stays open.

    So does all of it where most of the target would be new, and a block of which only a part has a source.
    """
    by_shape = {tuple(sorted(spec.shape)): key for key, spec in found.left_sources.items() if spec.shape}
    by_name = {tuple(tail(key, 3)): key for key in found.left_sources}
    outputs = _last_layers(want)
    made = {key for link in answer.links for key in link.target_keys} | set(answer.copied)
    made |= {doubt.target for doubt in answer.ambiguous}
    share = sum(want[key].numel for key in made) / max(want.numel, 1)
    remnant = _find_remnant(answer, found)
    counts = Counter(map(template, want))
    provided = [key for key in want if key in made]
    series = {(template(key), want[key].shape): key for key in provided}
    halves = {_half(key): key for key in provided}
    for key, spec in found.left_targets.items():
        other = by_shape.get(tuple(sorted(spec.shape)))
        namesake = by_name.get(tuple(tail(key, 3)))
        if not spec.shape or spec.dtype.kind != "float":
            answer.filled.append(key)
        elif other is not None:
            answer.unresolved[key] = f"'{other}' has its shape, and nothing else in common"
        elif (alike := series.get((template(key), spec.shape))) is not None:
            answer.unresolved[key] = f"of a further block, which the checkpoint lacks: fill it, or copy '{alike}'"
        elif want.kinds.get(key) == "buffer":
            answer.filled.append(key)
        elif (half := halves.get(_half(key))) is not None:
            answer.unresolved[key] = f"it works together with '{half}', which has a source: unfold both from it"
        elif key in found.beside:
            answer.unresolved[key] = f"of its block '{found.beside[key]}' is left over, whose shape does not fit"
        elif remnant is not None and counts[template(key)] > 1:
            answer.unresolved[key] = f"every block has it, and of the blocks of the source '{remnant}' is left over"
        elif namesake is not None and key not in outputs and not _is_output(key):
            shape = list(found.left_sources[namesake].shape)
            answer.unresolved[key] = f"'{namesake}' has its name and the shape {shape}, which no resize is known for"
        elif share < 0.5:
            answer.unresolved[key] = f"only {share:.0%} of the target has a source: is it the right one?"
        else:
            answer.filled.append(key)


def _half(key: str) -> str:
    """Name what a parameter is a part of, as `weight_g` and `weight_v` are; itself where it stands alone."""
    return re.sub(r"(weight_|original)\w+$", r"\1", key)


def _find_remnant(answer: Answer, found: Inference) -> str | None:
    """Find a matrix that is left of blocks of which other tensors are used."""
    used = {start for link in answer.links for key in link.source_keys for start in blocks_of(key)}
    return next(
        (
            key
            for key, spec in found.left_sources.items()
            if len(spec.shape) > 1 and spec.dtype.kind == "float" and not used.isdisjoint(blocks_of(key))
        ),
        None,
    )


def _last_layers(want: Manifest) -> set[str]:
    """List the parameters of the last layers, which tell the classes apart: they are new where the classes are."""
    parameters = [key for key in want if want.kinds.get(key) != "buffer"]
    return set(parameters[-4:])
