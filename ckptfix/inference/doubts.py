"""What speaks against links that fit: halves of modules, norms to be folded, rows in another order, shifted numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set

from ckptfix.inference.company import belong, is_bias, owner_of
from ckptfix.inference.folding import find_call, find_normed_layers
from ckptfix.inference.heads import find_exchanged
from ckptfix.inference.infer import Inference
from ckptfix.inference.leaders import read_leaders
from ckptfix.inference.lexicon import concept
from ckptfix.inference.link import Link, Open
from ckptfix.inference.merging import is_channel_first, is_merging
from ckptfix.inference.names import parent_of, read_name, tail
from ckptfix.inference.order import count_members
from ckptfix.inference.parted import find_parted
from ckptfix.inference.reading import place_around_blocks
from ckptfix.inference.rotary import TURN, is_rotary, source_order, target_order
from ckptfix.inference.siblings import find_unnamed
from ckptfix.inference.slots import find_role, is_sorted, read_slots
from ckptfix.inference.torn import Torn
from ckptfix.inference.wording import name_alike
from ckptfix.tensors import Manifest, TensorSpec

Doubt = Callable[[Link], Mapping[str, Open]]
"""Gives the reason to doubt a link, for each of its target keys; nothing where there is none."""


def find_doubts(found: Inference, have: Manifest, want: Manifest) -> Iterator[Doubt]:
    """Give what there is to doubt."""
    linked = {key for link in found.links for key in link.source_keys}
    guessed = {key for guess in found.guesses for key in guess.candidates}
    yield from _rotary(have, want)
    yield _halves(linked | guessed, found, have)
    yield from _folded(linked | _guessed_norms(found, want), have, want, found.reads)
    yield _shifted(found, have, want)
    yield from _merged(have, want)
    yield _torn(found, have)
    yield _listed(find_exchanged(found.links, want))
    yield _listed(find_parted(found, have, want))
    yield _listed(find_unnamed(found.links, want))
    yield from _other_end(found, have, want)
    yield _alone(found)


def _of(link: Link, why: str | None, *beside: str) -> Mapping[str, Open]:
    return dict.fromkeys(link.target_keys, Open(why, beside)) if why else {}


def _halves(known: set[str], found: Inference, have: Manifest) -> Doubt:
    """Doubt what is made of half a module: a norm's direction without its length, a weight without its adapters.

    A bias for which the target has no place is no half: the weight is right without it.
    """
    left: dict[str, list[str]] = {}
    for key, spec in have.items():
        if key not in known and spec.shape and spec.dtype.kind == "float":
            left.setdefault(owner_of(key), []).append(key)
    names = name_alike(key for keys in left.values() for key in keys)
    places = {parent_of(key) for key in found.left_targets if is_bias(key)}

    def why(link: Link) -> Mapping[str, Open]:
        for key in link.source_keys:
            beside = left.get(owner_of(key), ())
            for other in beside:
                if not belong(key, other) or (is_bias(other) and _has_no_place(link, places)):
                    continue
                if is_bias(key) and not is_bias(other):
                    shape = list(have[other].shape)
                    return _of(link, f"the weight that it goes with, '{names[other]}' {shape}, is left over", *beside)
                text = f"'{names[other]}' of the same module is left over, and may have to be folded in"
                if call := find_call(key, other):
                    text += f" (op `call`, fn {call})"
                return _of(link, text, *beside)
        return {}

    return why


def _has_no_place(link: Link, places: Set[str]) -> bool:
    """Tell whether the target's module is surely the right one, and lacks a bias.

    `places` are the modules that have a bias without a source.
    """
    named = "names" in link.evidence or tail(link.source_keys[0], 3) == tail(link.target_keys[0], 3)
    modules = {owner_of(key) for key in link.target_keys}
    return named and places.isdisjoint(modules | set(map(parent_of, modules)))


def _guessed_norms(found: Inference, want: Manifest) -> set[str]:
    """List what may be a norm of the target: of a convolution's bias it is no use, but with the norm folded in."""
    weights = {parent_of(key) for key, spec in want.items() if len(spec.shape) > 1}
    return {
        source
        for guess in found.guesses
        if not any(parent_of(key) in weights for key in guess.link.target_keys)
        for source in guess.candidates
    }


def _folded(linked: set[str], have: Manifest, want: Manifest, reads: Mapping[str, str]) -> Iterator[Doubt]:
    """Doubt a layer whose batch norm is left over as a whole: the target may have it folded in."""
    read = {key: read_name(text) for key, text in reads.items()}
    used = {read[key].parent for key in linked & read.keys() if read[key].kind in ("weight", "")}
    norms = {name.parent for name in read.values() if name.kind == "mean"}
    if sum(map(_counts, have.values())) > sum(map(_counts, want.values())):
        norms |= {name.parent for key, name in read.items() if _counts(have[key])}
    norms -= used
    if not norms:
        return
    leaders = read_leaders(have, reads).items()
    names = name_alike(norms)
    folded = {owner_of(leader): norm for place, leader in leaders if (norm := read_name(place).parent) in norms}
    folded |= find_normed_layers(norms, have, reads)
    parts: dict[str, list[str]] = {}
    for key, name in read.items():
        parts.setdefault(name.parent, []).append(key)

    def why(link: Link) -> Mapping[str, Open]:
        norm = next((folded[owner] for key in link.source_keys if (owner := owner_of(reads[key])) in folded), None)
        if norm is None:
            return {}
        which = f"batch norm '{names[norm]}', which follows it," if names[norm] != "*" else "batch norm right after it"
        text = f"the {which} is left over: fold it in first (op `call`, fn fold_batch_norm)"
        return _of(link, text, *parts[norm])

    yield why


def _counts(spec: TensorSpec) -> bool:
    """Tell what counts batches: a whole number, alone."""
    return not spec.shape and spec.dtype.kind == "int"


def _shifted(found: Inference, have: Manifest, want: Manifest) -> Doubt:
    """Doubt a series of which some go to their own number and others to a neighbour of another name.

    `layers.0`, `layers.1` and `layers.2` may as well be `proj_in`, `layers.0` and `proj_out`, in this order.
    """
    counted = count_members(have), count_members(want)
    longer = {
        prefix for prefix in counted[0].keys() & counted[1].keys() if len(counted[0][prefix]) > len(counted[1][prefix])
    }
    shifted = {
        prefix
        for link in found.links
        for key in link.source_keys
        for prefix in longer.intersection(_paths(key))
        if any(_is_beside(other, prefix) for other in link.target_keys)
    }

    def why(link: Link) -> Mapping[str, Open]:
        prefix = next((path for key in link.source_keys for path in _paths(key) if path in shifted), None)
        beside = (key for key in found.left_sources if prefix and key.startswith(prefix))
        text = prefix and f"the numbers of '{prefix}' may be shifted: the target has fewer, and others beside"
        return _of(link, text, *beside)

    return why


def _paths(key: str) -> Iterator[str]:
    """Give the paths of the modules above a key, each with its dot."""
    return (key[: dot.end()] for dot in re.finditer(r"\.", key))


def _is_beside(key: str, prefix: str) -> bool:
    """Tell whether a key is in the module of a series, and not of the series."""
    above = prefix[:-1].rpartition(".")[0]
    return bool(above) and key.startswith(f"{above}.") and not key.startswith(prefix)


def _torn(found: Inference, have: Manifest) -> Doubt:
    """Doubt what leaves its block for another, whose own tensor would fit as well."""
    torn = Torn(found.links, have)
    names = name_alike(have)

    def why(link: Link) -> Mapping[str, Open]:
        other = torn.find_other(link)
        if other is None:
            return {}
        return _of(link, f"'{names[other]}' fits as well, and the rest of the block comes from there", other)

    return why


def _listed(reasons: Mapping[str, Open]) -> Doubt:
    """Doubt the target keys that have a reason."""
    return lambda link: {key: reasons[key] for key in link.target_keys if key in reasons}


def _other_end(found: Inference, have: Manifest, want: Manifest) -> Iterator[Doubt]:
    """Doubt a norm of embeddings before all blocks that would become one after them, or the other way round."""
    if not found.reads or is_sorted(read_slots(have.tensors, found.reads)):
        return
    sides = place_around_blocks(have), place_around_blocks(want)

    def why(link: Link) -> Mapping[str, Open]:
        source, target = link.source_keys[0], link.target_keys[0]
        places = {sides[0].get(source), sides[1].get(target)}
        called = [{concept(word) for word in read_name(key).words} for key in (source, target)]
        is_moved = places == {"before", "after"} and ("embed" in called[0]) != ("embed" in called[1])
        return _of(link, f"it lies {sides[0][source]} all blocks in the checkpoint, and not here" if is_moved else None)

    yield why


def _alone(found: Inference) -> Doubt:
    """Doubt a bias whose weight is open, and has no candidate in the bias's module."""
    weights: dict[str, set[str]] = {}
    for guess in found.guesses:
        for key in guess.link.target_keys:
            if read_name(key).kind == "weight":
                weights[read_name(key).parent] = {read_name(other).parent for other in guess.candidates}

    def why(link: Link) -> Mapping[str, Open]:
        names = read_name(link.source_keys[0]), read_name(link.target_keys[0])
        apart = names[1].kind == "bias" and names[0].parent not in weights.get(names[1].parent, {names[0].parent})
        return _of(link, "the weight of its module is open, and comes from elsewhere" if apart else None)

    return why


def _merged(have: Manifest, want: Manifest) -> Iterator[Doubt]:
    """Doubt what merges patches two by two, where one side has the four of each channel side by side."""
    sides = is_channel_first(have), is_channel_first(want)
    if sides[0] == sides[1]:
        return
    turn = "(c h w) -> (w h c)" if sides[0] else "(w h c) -> (c h w)"

    def why(link: Link) -> Mapping[str, Open]:
        merges = any(is_merging(key, have) for key in link.source_keys)
        return _of(link, f"the last axis lies otherwise there: {turn}, with 2 for h and w" if merges else None)

    yield why


def _rotary(have: Manifest, want: Manifest) -> Iterator[Doubt]:
    """Doubt queries and keys whose rows may have to be permuted, unless both sides are known to agree."""
    orders = source_order(have), target_order(want)
    if not is_rotary(have, want) or (orders[0] is not None and orders[0] == orders[1]):
        return
    turn = TURN.get(orders)
    reason = (
        f"the rows of rotary heads lie otherwise there: {turn}, with h the number of heads"
        if turn
        else "rows of rotary heads come in two orders, and names and shapes do not tell which"
    )

    def why(link: Link) -> Mapping[str, Open]:
        turned = [key for key in link.target_keys if find_role(read_name(key)) in ("q", "k", "qkv")]
        if not turned or tail(link.source_keys[0], 3) == tail(link.target_keys[0], 3):  # of one library's names
            return {}
        return {**_of(link, "fused with a key that is ambiguous"), **dict.fromkeys(turned, Open(reason))}

    yield why
