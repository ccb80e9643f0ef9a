"""What speaks against links that fit: halves of modules, norms to be folded, rows in another order, shifted numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ckptfix.inference.infer import Inference
from ckptfix.inference.leaders import read_leaders
from ckptfix.inference.link import Link
from ckptfix.inference.merging import is_channel_first, is_merging
from ckptfix.inference.names import read_name, tail
from ckptfix.inference.order import count_members
from ckptfix.inference.rotary import TURN, is_rotary, source_order, target_order
from ckptfix.inference.slots import find_role
from ckptfix.inference.torn import Torn
from ckptfix.tensors import Manifest, TensorSpec

Doubt = Callable[[Link], Mapping[str, str]]
"""Gives the reason to doubt a link, for each of its target keys; nothing where there is none."""


def find_doubts(found: Inference, have: Manifest, want: Manifest) -> Iterator[Doubt]:
    """Give what there is to doubt."""
    linked = {key for link in found.links for key in link.source_keys}
    guessed = {key for guess in found.guesses for key in guess.candidates}
    yield from _rotary(have, want)
    yield _halves(linked | guessed, have)
    yield from _folded(linked, have, want, found.reads)
    yield _shifted(found, have, want)
    yield from _merged(have, want)
    yield _torn(found, have)
    yield _alone(found)


def _of(link: Link, why: str | None) -> Mapping[str, str]:
    return dict.fromkeys(link.target_keys, why) if why else {}


def _halves(known: set[str], have: Manifest) -> Doubt:
    """Doubt what is made of half a module: a norm's direction without its length, a weight without its adapters."""
    left: dict[str, list[str]] = {}
    for key, spec in have.items():
        if key not in known and spec.shape and spec.dtype.kind == "float":
            left.setdefault(_owner(key), []).append(key)

    def why(link: Link) -> Mapping[str, str]:
        beside = (other for key in link.source_keys for other in left.get(_owner(key), ()) if _belong(key, other))
        other = next(beside, None)
        return _of(link, other and f"'{other}' of the same module is left over, and may have to be folded in")

    return why


def _owner(key: str) -> str:
    """Give the module that a parameter works for: adapters work for the module that they are attached to."""
    module = key.rpartition(".")[0].partition(".lora_")[0].removesuffix(".base_layer")
    return module or key.partition("_")[0]


def _belong(key: str, other: str) -> bool:
    """Tell whether two parameters of a module work together: by their kind, or by the word that they begin with.

    What is left of a weight says nothing against a bias.
    """
    one, last = key.rpartition(".")[2], other.rpartition(".")[2]
    if read_name(key).kind == "bias":
        return read_name(other).kind == "weight" and not last.startswith("weight_")
    if _is_part(key) and _is_part(other):
        return True
    return "_" in one and one.partition("_")[0] == last.partition("_")[0]


def _is_part(key: str) -> bool:
    """Tell a parameter that works together with others of its module from one that stands for itself."""
    last = key.rpartition(".")[2]
    return read_name(key).kind in ("weight", "bias") or "weight" in last or "original" in last


def _folded(linked: set[str], have: Manifest, want: Manifest, reads: Mapping[str, str]) -> Iterator[Doubt]:
    """Doubt a convolution whose batch norm is left over as a whole: the target may have it folded in."""
    names = {key: read_name(text) for key, text in reads.items()}
    used = {names[key].parent for key in linked & names.keys() if names[key].kind in ("weight", "")}
    norms = {name.parent for name in names.values() if name.kind == "mean"}
    if sum(map(_counts, have.values())) > sum(map(_counts, want.values())):
        norms |= {name.parent for key, name in names.items() if _counts(have[key])}
    norms -= used
    if not norms:
        return
    leaders = read_leaders(have, reads).items()
    folded = {_owner(leader): place for place, leader in leaders if read_name(place).parent in norms}

    def why(link: Link) -> Mapping[str, str]:
        norm = next((folded[owner] for key in link.source_keys if (owner := _owner(reads[key])) in folded), None)
        return _of(link, norm and f"the batch norm of '{norm}', which follows it, is left over: fold it in first")

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
    torn = {
        prefix
        for link in found.links
        for key in link.source_keys
        for prefix in longer.intersection(_paths(key))
        if any(_is_beside(other, prefix) for other in link.target_keys)
    }

    def why(link: Link) -> Mapping[str, str]:
        prefix = next((path for key in link.source_keys for path in _paths(key) if path in torn), None)
        return _of(
            link, prefix and f"the numbers of '{prefix}' may be shifted: the target has fewer, and others beside"
        )

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

    def why(link: Link) -> Mapping[str, str]:
        other = torn.find_other(link)
        return _of(link, other and f"'{other}' fits as well, and the rest of the block comes from there")

    return why


def _alone(found: Inference) -> Doubt:
    """Doubt a bias whose weight is open, and has no candidate in the bias's module."""
    weights: dict[str, set[str]] = {}
    for guess in found.guesses:
        for key in guess.link.target_keys:
            if read_name(key).kind == "weight":
                weights[read_name(key).parent] = {read_name(other).parent for other in guess.candidates}

    def why(link: Link) -> Mapping[str, str]:
        names = read_name(link.source_keys[0]), read_name(link.target_keys[0])
        apart = names[1].kind == "bias" and names[0].parent not in weights.get(names[1].parent, {names[0].parent})
        return _of(link, f"the weight of '{names[1].parent}' is open, and comes from elsewhere" if apart else None)

    return why


def _merged(have: Manifest, want: Manifest) -> Iterator[Doubt]:
    """Doubt what merges patches two by two, where one side has the four of each channel side by side."""
    sides = is_channel_first(have), is_channel_first(want)
    if sides[0] == sides[1]:
        return
    turn = "(c h w) -> (w h c)" if sides[0] else "(w h c) -> (c h w)"

    def why(link: Link) -> Mapping[str, str]:
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

    def why(link: Link) -> Mapping[str, str]:
        turned = [key for key in link.target_keys if find_role(read_name(key)) in ("q", "k", "qkv")]
        if not turned or tail(link.source_keys[0], 3) == tail(link.target_keys[0], 3):  # of one library's names
            return {}
        return {**_of(link, "fused with a key that is ambiguous"), **dict.fromkeys(turned, reason)}

    yield why
