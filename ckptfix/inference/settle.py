"""From what was matched to an answer for each target key: resolved, filled, ambiguous or unresolved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import Struct, field

from ckptfix.formats import Checkpoint, wrapper_prefixes
from ckptfix.inference.branches import Branches, are_apart, find_branches, find_single
from ckptfix.inference.company import owner_of, works_for
from ckptfix.inference.copies import keep_one
from ckptfix.inference.doubts import Doubt, find_doubts
from ckptfix.inference.dropped import find_dropped, find_new
from ckptfix.inference.infer import Inference, infer
from ckptfix.inference.instead import find_instead
from ckptfix.inference.left_out import find_parts
from ckptfix.inference.link import Link, Open
from ckptfix.inference.losses import find_losses
from ckptfix.inference.note import Note
from ckptfix.inference.remaining import Remaining, is_output
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.values import tell_norms
from ckptfix.inference.vocabulary import is_token_table
from ckptfix.tensors import Manifest


class Ambiguity(Struct, frozen=True):
    """A target key for which several sources, or several layouts, would do; `beside` are others that `why` is about."""

    target: str
    candidates: tuple[str, ...]
    why: str
    beside: tuple[str, ...] = ()


class Answer(Struct):
    """What becomes of every key of both sides.

    `copied` maps a target key to the one that it repeats, `unresolved` a target key to the reason why no source was
    found for it. `notes` say what was taken for granted, and what is lost or made up.
    """

    links: list[Link]
    copied: dict[str, str] = field(default_factory=dict)
    filled: list[str] = field(default_factory=list)
    ambiguous: list[Ambiguity] = field(default_factory=list)
    unresolved: dict[str, Open] = field(default_factory=dict)
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
    copies = tuple(key for key in have if key not in single.kept)
    for why, keys in single.doubts.items():
        _doubt(answer, _about(keys, Open(why, copies)))
    for why_of in find_doubts(found, single.kept, want):
        _doubt(answer, why_of)
    branches = find_branches(want)
    for equal in list(find_single(branches, answer.links)):
        _leave_open(answer, found, equal)
    modules = _left_by_module(found)
    for guess in found.guesses:
        beside = dict.fromkeys(key for other in guess.candidates for key in modules.get(owner_of(other), ()))
        for key in guess.link.target_keys:
            if key in found.left_targets:
                answer.ambiguous.append(Ambiguity(key, guess.candidates, guess.why, tuple(beside)))
                del found.left_targets[key]
    _repeat(answer, found, want, branches)
    _fill(answer, found, want)
    used = {key for link in answer.links for key in link.source_keys}
    used |= {key for doubt in answer.ambiguous for key in doubt.candidates}
    answer.unused = [key for key in have if key not in used]
    unused = dict.fromkeys(key for key in single.kept if key not in used).keys()
    notes = list(find_losses(answer.links, unused, answer.filled, single.kept, want))
    if not answer.ambiguous and not answer.unresolved:
        notes += find_parts(unused, single.kept)
        tied = single.kept.tied + (source.aliases if source is not None else ())
        again = {key for group in tied if not used.isdisjoint(group) for key in group}
        notes += _untold(answer, dict.fromkeys(key for key in unused if key not in again), notes, single.kept, want)
    answer.notes += [note.text for note in notes]
    return answer


def _untold(
    answer: Answer, unused: Collection[str], notes: Iterable[Note], have: Manifest, want: Manifest
) -> Iterator[Note]:
    """Give the notes on what is dropped or new, and told neither by a note nor by the remark of the rule that fills."""
    prefix = "".join(wrapper_prefixes(have))
    table = {key.removeprefix(prefix): key for key in unused}
    instead = dict(find_instead(answer.filled, {short: have[key].shape for short, key in table.items()}, want))
    told = frozenset().union(*(note.keys for note in notes))
    yield from find_dropped(unused, told | _with_company((table[short] for short in instead.values()), unused), have)
    made = [*(key for link in answer.links for key in link.target_keys), *answer.copied]
    yield from find_new(dict.fromkeys(answer.filled), _with_company(instead, answer.filled), made, want)


def _with_company(keys: Iterable[str], others: Iterable[str]) -> set[str]:
    """Add to keys what works for the same modules."""
    found = set(keys)
    modules = set(map(works_for, found)) - {""}
    return found | {key for key in others if works_for(key) in modules}


def _left_by_module(found: Inference) -> dict[str, list[str]]:
    """List the source keys that are no candidates either, such as adapters, by the module that they work for."""
    guessed = {key for guess in found.guesses for key in guess.candidates}
    modules: dict[str, list[str]] = {}
    for key, spec in found.left_sources.items():
        if key not in guessed and spec.shape and spec.dtype.kind == "float":
            modules.setdefault(owner_of(key), []).append(key)
    return modules


def _leave_open(answer: Answer, found: Inference, branches: Branches) -> None:
    """Leave all of equal branches open: those that have no source, and the one that took it."""
    one = f"the target has {len(branches)} of these, as {', '.join(map(repr, branches))}, and the checkpoint one"
    keys = frozenset().union(*branches.values())
    _doubt(answer, _about(keys, Open(f"{one}: copy it, or fill the others")))
    guessed = {key for guess in found.guesses for key in guess.link.target_keys}
    for key in [key for key in found.left_targets if key in keys - guessed]:
        answer.unresolved[key] = Open(one)
        del found.left_targets[key]


def _about(keys: frozenset[str], reason: Open) -> Doubt:
    """Doubt the links from or to some keys."""

    def why_of(link: Link) -> dict[str, Open]:
        is_about = not keys.isdisjoint(link.source_keys + link.target_keys)
        return dict.fromkeys(link.target_keys, reason) if is_about else {}

    return why_of


def _doubt(answer: Answer, why_of: Doubt) -> None:
    """Take back the links that there is a reason to doubt: their targets are ambiguous."""
    kept: list[Link] = []
    for link in answer.links:
        if reasons := why_of(link):
            answer.ambiguous += [
                Ambiguity(key, link.source_keys, reason.why, reason.beside) for key, reason in reasons.items()
            ]
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
        if not spec.shape or spec.shape[0] not in rows or not (key in tables or is_output(key)):
            continue
        like = [other for other in made if want[other].shape == spec.shape and (other in tables or key not in tables)]
        if len(like) == 1 and not any(are_apart((key, like[0]), equal) for equal in branches):
            answer.copied[key] = like[0]
            answer.notes.append(f"'{key}' has no source of its own; it is taken to be tied to '{like[0]}'")
            del found.left_targets[key]


def _fill(answer: Answer, found: Inference, want: Manifest) -> None:
    """Keep the initial value of what has no counterpart; the rest stays open, with the reason."""
    made = {key for link in answer.links for key in link.target_keys} | set(answer.copied)
    made |= {doubt.target for doubt in answer.ambiguous}
    remaining = Remaining(found, answer.links, want, frozenset(made))
    for key in found.left_targets:
        if reason := remaining.find_open(key):
            answer.unresolved[key] = reason
        else:
            answer.filled.append(key)
