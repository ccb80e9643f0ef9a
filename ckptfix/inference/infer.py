"""Infer from names and shapes which source tensors make which target tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from ckptfix.inference.lexicon import concept
from ckptfix.inference.link import Link, Term
from ckptfix.inference.lockstep import match_numbered
from ckptfix.inference.match import Allowed, Match, Matching, convention
from ckptfix.inference.names import read_name
from ckptfix.inference.resizable import find_resize
from ckptfix.inference.slots import Slot
from ckptfix.inference.units import Level, Pairing, Surroundings, Unit, find_levels, pair_levels, read_keys
from ckptfix.tensors import Manifest, TensorSpec

_LEAST_SHARE = 0.6
"""Of the elements of two blocks, what must have a counterpart for them to be the same block."""


@dataclass
class Inference:
    """What was found: links that are certain, links that are not, and what is left on both sides."""

    links: list[Link] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)
    left_sources: dict[str, TensorSpec] = field(default_factory=dict)
    left_targets: dict[str, TensorSpec] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    """Target keys of blocks that were aligned, and a source key of the same block that is left as well."""
    new_blocks: set[str] = field(default_factory=set)
    """Target keys of blocks that repeat, and that the source has fewer of."""


@dataclass(frozen=True)
class Guess:
    """A link that would do, others that would as well, and why none of them is certain."""

    link: Link
    rivals: tuple[str, ...]
    why: str


def infer(have: Manifest, want: Manifest, allowed: Allowed | None = None) -> Inference:
    """Align the repeated blocks first, then what is left.

    Twice: the first time shows the conventions of the file, such as transposed weights, the second time keeps them.
    """
    allowed = allowed or Allowed()
    if allowed.order and (numbered := match_numbered(have, want)) is not None:
        return Inference(links=numbered)
    conventions = _conventions(_infer(have, want, allowed, None).matches)
    return _infer(have, want, allowed, conventions)


def _conventions(matches: Iterable[Match]) -> dict[tuple[object, ...], str | None]:
    """Find the layouts that all certain matches of a kind have whose shapes leave no choice."""
    seen: dict[tuple[object, ...], set[str | None]] = {}
    for match in matches:
        single = len(match.sources) == len(match.targets) == len(match.options) == 1
        if match.is_certain and single and not _is_square(match):
            kind = (match.inside, *convention(match.sources[0], match.targets[0]))
            seen.setdefault(kind, set()).update(match.options)
    return {kind: layouts.pop() for kind, layouts in seen.items() if len(layouts) == 1}


def _is_square(match: Match) -> bool:
    return any(len(shape) == 2 and shape[0] == shape[1] for shape in match.targets[0].shapes)


def _infer(
    have: Manifest, want: Manifest, allowed: Allowed, conventions: Mapping[tuple[object, ...], str | None] | None
) -> Inference:
    found = Inference(left_sources=dict(have.tensors), left_targets=dict(want.tensors))
    source_reads, target_reads = read_keys(have), read_keys(want)
    pools = dict(have.tensors), dict(want.tensors)
    scopes: dict[str, str] = {}
    vocabularies = _vocabularies(have, want)
    while True:
        levels = find_levels(pools[0], source_reads), find_levels(pools[1], target_reads)
        surroundings = _surroundings(pools, levels, (source_reads, target_reads))
        pairing = pair_levels(*levels, surroundings, use_names=allowed.names)
        if pairing is None:
            break
        for pairs in _kinds(pairing):
            sources = _slots([unit for unit, _ in pairs], have, {})
            targets = _slots([unit for _, unit in pairs], want, want.owners)
            matching = Matching(sources, targets, allowed, inside=True, conventions=conventions)
            matches = matching.solve()
            if _share(matching, matches) < _LEAST_SHARE:
                continue  # of one size by chance: what is inside does not correspond
            _settle(found, matches, pairing.rivals)
            _settle_resized(found, matching, vocabularies)
            _note_left(found, matching)
        paired = {id(unit) for _, unit in pairing.pairs}
        for unit in pairing.target.units:
            if id(unit) not in paired and len(pairing.target.units) > len(pairing.source.units):
                found.new_blocks |= set(unit.keys.values())
        for pool, units in zip(pools, zip(*pairing.pairs, strict=True), strict=True):
            for key in [key for unit in units for key in unit.keys.values()]:
                pool.pop(key, None)
        if not pairing.rivals:
            scopes.setdefault(
                surroundings.scope(0, pairing.source.template), surroundings.scope(1, pairing.target.template)
            )
    repeated = _repeated(found.left_sources, source_reads) | _repeated(found.left_targets, target_reads)
    unique = _unique(have, source_reads) | _unique(want, target_reads)
    matching = Matching(
        _rest(found.left_sources, source_reads, {}, scopes.keys()),
        _rest(found.left_targets, target_reads, want.owners, scopes.values()),
        allowed,
        inside=False,
        conventions=conventions,
        unique=unique,
        repeated=repeated,
        scopes=frozenset(scopes.items()),
    )
    _settle(found, matching.solve())
    _settle_resized(found, matching, vocabularies)
    return found


def _note_left(found: Inference, matching: Matching) -> None:
    """Note what is left on both sides of the same blocks."""
    for n in range(len(matching.sources[0].terms) if matching.sources else 0):
        sources = [key for slot in matching.sources for key in slot.terms[n].keys if key in found.left_sources]
        weights = [key for key in sources if len(found.left_sources[key].shape) > 1]
        for slot in matching.targets:
            for key in slot.terms[n].keys:
                if key in found.left_targets and weights:
                    found.beside[key] = weights[0]


def _share(matching: Matching, matches: Iterable[Match]) -> float:
    """Tell how much of the larger part of two blocks has a counterpart in the other, 0 to 1."""
    matches = list(matches)
    sides = (
        (matching.sources, [slot for match in matches for slot in match.sources]),
        (matching.targets, [slot for match in matches for slot in match.targets]),
    )
    return min(sum(map(_size, matched)) / max(sum(map(_size, slots)), 1) for slots, matched in sides)


def _size(slot: Slot) -> int:
    return sum(map(prod, slot.shapes))


def _surroundings(
    pools: tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]],
    levels: tuple[Sequence[Level], Sequence[Level]],
    reads: tuple[Mapping[str, str], Mapping[str, str]],
) -> Surroundings:
    outside: list[dict[str, TensorSpec]] = []
    for pool, side, texts in zip(pools, levels, reads, strict=True):
        within: frozenset[str] = frozenset().union(*(level.keys for level in side))
        outside.append({texts[key]: spec for key, spec in pool.items() if key not in within})
    surroundings = Surroundings(*outside)
    surroundings.prepare(0, levels[0])
    surroundings.prepare(1, levels[1])
    return surroundings


def _rest(
    left: Mapping[str, TensorSpec], reads: Mapping[str, str], owners: Mapping[str, str], scopes: Iterable[str]
) -> list[Slot]:
    """Make slots of what is left, read from the innermost scope on."""
    ordered = sorted(scopes, key=len, reverse=True)
    slots: list[Slot] = []
    for position, (key, spec) in enumerate(left.items()):
        text = reads[key]
        scope = next((scope for scope in ordered if text.startswith(scope)), "")
        label = text.removeprefix(scope)
        owner, number = owners.get(key, ""), spec.dtype.kind
        slots.append(Slot(text, (Term.of(key),), (spec.shape,), position, owner, label, number))
    return slots


def _repeated(left: Mapping[str, TensorSpec], reads: Mapping[str, str]) -> frozenset[str]:
    """List the places that are the same in several blocks, shapes included."""
    repeated: set[str] = set()
    for level in find_levels(left, reads):
        kinds: dict[object, list[Unit]] = {}
        for unit in level.units:
            shapes = tuple((place, left[key].shape) for place, key in unit.keys.items())
            kinds.setdefault(shapes, []).append(unit)
        alike = [unit for units in kinds.values() if len(units) > 1 for unit in units]
        repeated |= {reads[key] for unit in alike for key in unit.keys.values()}
    return frozenset(repeated)


def _unique(manifest: Manifest, reads: Mapping[str, str]) -> frozenset[str]:
    """List the places of two axes and more whose shape nothing else has, however it is turned."""
    seen: dict[tuple[int, ...], list[str]] = {}
    for key, spec in manifest.items():
        seen.setdefault(tuple(sorted(spec.shape)), []).append(key)
    return frozenset(reads[keys[0]] for keys in seen.values() if len(keys) == 1 and len(manifest[keys[0]].shape) > 1)


def _kinds(pairing: Pairing) -> list[list[tuple[Unit, Unit]]]:
    """Group the pairs of blocks that have the same places on both sides."""
    groups: dict[object, list[tuple[Unit, Unit]]] = {}
    for source, target in pairing.pairs:
        groups.setdefault((frozenset(source.keys), frozenset(target.keys)), []).append((source, target))
    return list(groups.values())


def _slots(units: Sequence[Unit], manifest: Manifest, owners: Mapping[str, str]) -> list[Slot]:
    places = units[0].keys
    return [
        Slot(
            place,
            tuple(Term.of(unit.keys[place]) for unit in units),
            tuple(manifest[unit.keys[place]].shape for unit in units),
            position,
            owners.get(key, ""),
            number=manifest[key].dtype.kind,
        )
        for position, (place, key) in enumerate(places.items())
    ]


def _settle(found: Inference, matches: Iterable[Match], rivals: Sequence[str] = ()) -> None:
    """Take what is certain, and note what is not. `rivals` are blocks that the whole might belong to as well."""
    for match in matches:
        found.matches.append(match)
        for n in range(len(match.targets[0].terms)):
            link = _link(match, n)
            if match.is_certain and not rivals:
                _take(found, link)
            else:
                others = tuple(slot.terms[n].keys[0] for slot in match.rivals)
                found.guesses.append(Guess(link, others, _doubt(match, rivals)))


def _link(match: Match, n: int) -> Link:
    return Link(
        tuple(slot.terms[n] for slot in match.sources),
        tuple(slot.terms[n] for slot in match.targets),
        match.layout,
        confidence=round(min(0.99, 0.6 + 0.1 * min(match.margin, 2) + 0.1 * min(match.support, 2)), 2),
        why=match.why or f"by {', '.join(sorted(match.evidence))}",
        evidence=frozenset(match.evidence),
    )


def _doubt(match: Match, rivals: Sequence[str]) -> str:
    if rivals:
        return f"the blocks {rivals[0]} fit as well"
    if match.why:
        return match.why
    return "names and shapes do not tell these apart" if match.rivals else "nothing but its shape speaks for it"


def _take(found: Inference, link: Link) -> None:
    found.links.append(link)
    for key in link.source_keys:
        found.left_sources.pop(key, None)
    for key in link.target_keys:
        found.left_targets.pop(key, None)


def _settle_resized(found: Inference, matching: Matching, vocabularies: tuple[int, int] | None) -> None:
    """Match what is left in the same places by names alone, where a resize leads from one to the other."""

    def resize(source: Slot, target: Slot) -> Mapping[str, object] | None:
        fields = [
            find_resize(source, target, have, want, vocabularies)
            for have, want in zip(source.shapes, target.shapes, strict=True)
        ]
        return fields[0] if all(fields) else None

    sources = [slot for slot in matching.sources if slot.terms[0].keys[0] in found.left_sources]
    targets = [slot for slot in matching.targets if slot.terms[0].keys[0] in found.left_targets]
    if not sources or not targets:
        return
    again = Matching(sources, targets, matching.allowed, inside=matching.inside, scopes=matching.scopes, resize=resize)
    for match in again.solve():
        if not match.is_certain:
            continue
        for n in range(len(match.targets[0].terms)):
            fields = find_resize(
                match.sources[0], match.targets[0], match.sources[0].shapes[n], match.targets[0].shapes[n], vocabularies
            )
            _take(found, replace(_link(match, n), layout=None, resize=fields, why=f"{_link(match, n).why}; resized"))


def _vocabularies(have: Manifest, want: Manifest) -> tuple[int, int] | None:
    """Give the numbers of tokens of both sides, where they differ."""
    tables = [key for key, spec in want.items() if is_token_table(key, spec, want.owners.get(key, ""))]
    found: set[tuple[int, int]] = set()
    for key, spec in have.items():
        alike = [table for table in tables if _tail(table) == _tail(key) or is_token_table(key, spec)]
        found |= {(spec.shape[0], want[table].shape[0]) for table in alike if want[table].shape[1:] == spec.shape[1:]}
    differing = {pair for pair in found if pair[0] != pair[1]}
    return differing.pop() if len(differing) == 1 else None


def _tail(key: str) -> list[str]:
    return key.split(".")[-2:]


def is_token_table(key: str, spec: TensorSpec, owner: str = "") -> bool:
    """Tell whether a tensor is the table of a vocabulary, [tokens, width]."""
    meant = set(map(concept, read_name(key).words))
    named = {"token", "embed"} <= meant or "wte" in read_name(key).words or owner == "Embedding"
    return len(spec.shape) == 2 and named and not meant & {"position", "segment"}
