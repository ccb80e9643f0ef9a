"""Infer from names and shapes which source tensors make which target tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod

from msgspec import Struct, field
from msgspec.structs import replace

from ckptfix.inference.blocks import Aligned, Reads, align_blocks
from ckptfix.inference.candidate import Match
from ckptfix.inference.lexicon import concept
from ckptfix.inference.link import Link, Term
from ckptfix.inference.lockstep import match_numbered
from ckptfix.inference.match import Convention, Conventions, Matching, convention
from ckptfix.inference.names import read_name
from ckptfix.inference.reading import read_keys, template
from ckptfix.inference.resizable import Fields, find_resize
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.slots import Slot, read_slots
from ckptfix.inference.units import Level, Unit, find_levels
from ckptfix.inference.vocabulary import find_vocabularies
from ckptfix.tensors import Manifest, TensorSpec

_NAMESAKES = "the names and shapes of one side are all found on the other"
_LEAST_SHARE = 0.6
"""Of the elements of two blocks, what must have a counterpart for them to be the same block."""


class Inference(Struct):
    """What was found: links that are certain, links that are not, and what is left on both sides."""

    links: list[Link] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)
    left_sources: dict[str, TensorSpec] = field(default_factory=dict)
    left_targets: dict[str, TensorSpec] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    """Target keys of blocks that were aligned, and a source key of the same block that is left as well."""
    reads: Mapping[str, str] = field(default_factory=dict)
    """How the source keys are read; empty where they are numbers and nothing else."""


class Guess(Struct, frozen=True):
    """A link that would do, others that would as well, and why none of them is certain."""

    link: Link
    rivals: tuple[str, ...]
    why: str
    by_blocks: bool = False
    """Whether it is doubted only because its whole block may be another."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """The source keys that would do."""
        return tuple(dict.fromkeys((*self.link.source_keys, *self.rivals)))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of both sides."""
        return (*self.link.source_keys, *self.link.target_keys)


def infer(have: Manifest, want: Manifest, allowed: Allowed | None = None) -> Inference:
    """Align the repeated blocks first, then what is left.

    What is inside is matched twice: the first time shows the conventions of the file, such as transposed weights, the
    second time keeps them.
    """
    allowed = allowed or Allowed()
    if allowed.order and (numbered := match_numbered(have, want)) is not None:
        return Inference(links=numbered)
    reads = read_keys(have), read_keys(want)
    if allowed.names and (same := _match_namesakes(have, want)):
        left = [_without(side.tensors, same) for side in (have, want)]
        links = [Link.rename(key, key, why=_NAMESAKES, evidence=frozenset({"names", "shapes"})) for key in same]
        return Inference(links, left_sources=left[0], left_targets=left[1], reads=reads[0])
    aligned = list(align_blocks(have, want, reads, use_names=allowed.names))
    first = _match(have, want, reads, aligned, allowed, None)
    return _match(have, want, reads, aligned, allowed, _conventions(first.matches))


def _match_namesakes(have: Manifest, want: Manifest) -> list[str]:
    """List the keys that both sides have, where one side has all of the other's, of the same shapes. Nothing otherwise.

    Nor where the other side counts further: then a layer may have been put in front.
    """
    both = [key for key in want if key in have]
    if len(both) < min(len(have), len(want)):
        return []
    if any(have[key].shape != want[key].shape or have[key].dtype.kind != want[key].dtype.kind for key in both):
        return []
    shared = set(map(template, both))
    further = {*have, *want} - set(both)
    return [] if any(template(key) in shared for key in further) else both


def _conventions(matches: Iterable[Match]) -> dict[Convention, str | None]:
    """Find the layouts that all certain matches of a kind have whose shapes leave no choice."""
    seen: dict[Convention, set[str | None]] = {}
    for match in matches:
        single = len(match.sources) == len(match.targets) == len(match.options) == 1
        if match.is_placed and single and not _is_square(match):
            kind = convention(match.sources[0], match.targets[0], inside=match.inside)
            seen.setdefault(kind, set()).update(match.options)
    return {kind: layouts.pop() for kind, layouts in seen.items() if len(layouts) == 1}


def _is_square(match: Match) -> bool:
    return any(len(shape) == 2 and shape[0] == shape[1] for shape in match.targets[0].shapes)


def _match(
    have: Manifest,
    want: Manifest,
    reads: Reads,
    aligned: Sequence[Aligned],
    allowed: Allowed,
    conventions: Conventions | None,
) -> Inference:
    """Match the places of the blocks that were aligned, then what is left on both sides."""
    found = Inference(left_sources=dict(have.tensors), left_targets=dict(want.tensors), reads=reads[0])
    vocabularies = find_vocabularies(have, want)
    for blocks in aligned:
        for pairs in blocks.kinds():
            sources = _slots([unit for unit, _ in pairs], blocks.pairing.source.template, have, {})
            targets = _slots([unit for _, unit in pairs], blocks.pairing.target.template, want, want.owners)
            matching = Matching(sources, targets, allowed, inside=True, conventions=conventions)
            matches = matching.solve()
            if _share(matching, matches) < _LEAST_SHARE:
                continue  # of one size by chance: what is inside does not correspond
            _settle(found, matches, blocks.pairing.doubt)
            _settle_resized(found, matching, vocabularies)
            _note_left(found, matching)
    scopes: dict[str, str] = {}
    doubted = {key for guess in found.guesses if guess.by_blocks for key in guess.keys}
    for blocks in aligned:
        if blocks.pairing.is_turnable:
            doubted |= _around(have, reads[0], blocks.pairing.source) | _around(want, reads[1], blocks.pairing.target)
        if not blocks.pairing.doubt:
            scopes.setdefault(*blocks.scopes)
    matching = Matching(
        read_slots(_without(found.left_sources, doubted), reads[0], {}, scopes.keys()),
        read_slots(_without(found.left_targets, doubted), reads[1], want.owners, scopes.values()),
        allowed,
        inside=False,
        conventions=conventions,
        unique=_unique(have, reads[0]) | _unique(want, reads[1]),
        repeated=_repeated(have.tensors, reads[0]) | _repeated(want.tensors, reads[1]),
        scopes=frozenset(scopes.items()),
        in_order=not doubted,
    )
    _settle(found, matching.solve())
    _settle_resized(found, matching, vocabularies)
    return found


def _around(tensors: Manifest, reads: Mapping[str, str], level: Level) -> set[str]:
    """Give everything in the modules that a level's outermost number counts."""
    start = level.template.partition("#")[0]
    return {key for key in tensors if template(reads[key]).startswith(f"{start}#")}


def _note_left(found: Inference, matching: Matching) -> None:
    """Note what is left on both sides of the same blocks."""
    for n in range(len(matching.sources[0].terms) if matching.sources else 0):
        sources = [key for slot in matching.sources for key in slot.terms[n].keys if key in found.left_sources]
        weights = [key for key in sources if len(found.left_sources[key].shape) > 1]
        for slot in matching.targets:
            for key in slot.terms[n].keys:
                if key in found.left_targets and weights:
                    found.beside[key] = weights[0]


def _share(matching: Matching, matches: Sequence[Match]) -> float:
    """Tell how much of two blocks has a counterpart in the other, 0 to 1: of the elements or of the tensors."""
    matched = (
        [slot for match in matches for slot in match.sources],
        [slot for match in matches for slot in match.targets],
    )
    sides = list(zip(matched, (matching.sources, matching.targets), strict=True))
    of_elements = min(sum(map(_size, found)) / max(sum(map(_size, slots)), 1) for found, slots in sides)
    return max(of_elements, min(len(found) / max(len(slots), 1) for found, slots in sides))


def _size(slot: Slot) -> int:
    return sum(map(prod, slot.shapes))


def _without(tensors: Mapping[str, TensorSpec], keys: Collection[str]) -> dict[str, TensorSpec]:
    return {key: spec for key, spec in tensors.items() if key not in keys}


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


def _slots(units: Sequence[Unit], template: str, manifest: Manifest, owners: Mapping[str, str]) -> list[Slot]:
    """Make slots of blocks. What a block itself is called (`patch_embed#`) belongs to the names of its places."""
    places = units[0].keys
    own = re.split(r"[./]", template.rstrip(".#"))[-1]
    label = "".join(f"{word}." for word in read_name(own).telling if concept(word) not in ("encoder", "decoder"))
    return [
        Slot(
            place,
            tuple(Term.of(unit.keys[place]) for unit in units),
            tuple(manifest[unit.keys[place]].shape for unit in units),
            position,
            owners.get(key, ""),
            label and label + place,
            number=manifest[key].dtype.kind,
        )
        for position, (place, key) in enumerate(places.items())
    ]


def _settle(found: Inference, matches: Iterable[Match], doubt: str = "") -> None:
    """Take what is certain, and note what is not. `doubt` says why the whole block may belong elsewhere."""
    for match in matches:
        found.matches.append(match)
        for n in range(len(match.targets[0].terms)):
            link = _link(match, n)
            if match.is_certain and not doubt:
                _take(found, link)
            else:
                others = tuple(slot.terms[n].keys[0] for slot in match.rivals)
                found.guesses.append(Guess(link, others, doubt or _doubt(match), bool(doubt)))


def _link(match: Match, n: int) -> Link:
    return Link(
        tuple(slot.terms[n] for slot in match.sources),
        tuple(slot.terms[n] for slot in match.targets),
        match.layout,
        confidence=round(min(0.99, 0.6 + 0.1 * min(match.margin, 2) + 0.1 * min(match.support, 2)), 2),
        why=match.why,
        evidence=frozenset(match.evidence),
    )


def _doubt(match: Match) -> str:
    if match.why:
        return match.why
    return "names and shapes do not tell these apart" if match.rivals else "nothing but its shape speaks for it"


def _take(found: Inference, link: Link) -> None:
    found.links += link.unstacked()
    for key in link.source_keys:
        found.left_sources.pop(key, None)
    for key in link.target_keys:
        found.left_targets.pop(key, None)


def _settle_resized(found: Inference, matching: Matching, vocabularies: tuple[int, int] | None) -> None:
    """Match what is left in the same places by names alone, where a resize leads from one to the other.

    Not what may as well be something of its own shape, though nothing tells what.
    """

    def resizes(source: Slot, target: Slot) -> list[Fields | None]:
        shapes = zip(source.shapes, target.shapes, strict=True)
        return [find_resize(source, target, have, want, vocabularies) for have, want in shapes]

    sources = [slot for slot in matching.sources if slot.terms[0].keys[0] in found.left_sources]
    targets = [slot for slot in matching.targets if slot.terms[0].keys[0] in found.left_targets]
    shared = {slot.shapes for slot in sources} & {slot.shapes for slot in targets}
    sources, targets = ([slot for slot in side if slot.shapes not in shared] for side in (sources, targets))
    if not sources or not targets:
        return
    again = Matching(
        sources,
        targets,
        matching.allowed,
        inside=matching.inside,
        scopes=matching.scopes,
        may_resize=lambda source, target: all(resizes(source, target)),
    )
    for match in again.solve():
        if match.is_certain:
            for n, fields in enumerate(resizes(match.sources[0], match.targets[0])):
                link = _link(match, n)
                _take(found, replace(link, layout=None, resize=fields, why=f"{link.reason}; resized"))
