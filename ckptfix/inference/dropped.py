"""Say what is dropped, and what is new within blocks, where nothing else tells of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set

from ckptfix.counts import count
from ckptfix.inference.company import is_bias, is_statistic
from ckptfix.inference.copies import floats, subtrees
from ckptfix.inference.names import read_name
from ckptfix.inference.note import Note
from ckptfix.inference.reading import blocks_of
from ckptfix.inference.wording import list_parts
from ckptfix.tensors import Manifest, TensorSpec

_COMPUTED = frozenset(["mask", "masked", "freq", "freqs", "coords", "index", "ids", "cos", "sin", "cached", "queue"])
"""Words of tensors that are no weights: a model computes them itself, or collects them in training."""
_NORM_WORDS = frozenset(["norm", "bn", "ln", "gn", "layernorm", "batchnorm", "groupnorm", "rmsnorm"])


def is_trained(key: str, spec: TensorSpec) -> bool:
    """Tell what training made, running statistics included, from counters and from what a model computes itself."""
    if spec.dtype.kind != "float" or read_name(key).kind == "count":
        return False
    words = set(read_name(key).words)
    is_mask = is_bias(key) and len(spec.shape) > 2 and spec.shape[-1] == spec.shape[-2] > 1
    return not is_mask and ("token" in words or _COMPUTED.isdisjoint(words))


def find_dropped(dropped: Collection[str], told: Set[str], have: Manifest) -> Iterator[Note]:
    """Give a note on the norms among what is dropped, and one on the rest; `told` is what other notes are about."""
    parts: dict[str, list[str]] = {}
    for key, part in outermost(dropped, have).items():
        if key not in told and is_trained(key, have[key]):
            parts.setdefault(part, []).append(key)
    before = _matrices_before(have)
    norms = {
        part: keys
        for part, keys in parts.items()
        if _is_norm(part, keys, have) and before[keys[0]] not in dropped and before[keys[0]]
    }
    kept = [key for key in have if key not in dropped]
    if norms:
        what = f"{count(len(norms), 'norm')} {'is' if len(norms) == 1 else 'are'} left out ({list_parts(norms, kept)})"
        it = "it" if len(norms) == 1 else "them"
        batch = any(is_statistic(key) for keys in norms.values() for key in keys)
        fold = "; a batch norm right after its layer can be folded in (op `call`, fn fold_batch_norm)" if batch else ""
        yield Note(f"{what}: without {it} the target computes something else{fold}")
    rest = {part: keys for part, keys in parts.items() if part not in norms}
    if rest:
        total = sum(map(len, rest.values()))
        it = "it" if len(rest) == 1 else "them"
        listed = list_parts(rest, kept)
        yield Note(f"{listed}: left out, nothing of the target is made of {it} ({count(total, 'trained tensor')})")


def find_new(filled: Collection[str], told: Set[str], made: Iterable[str], want: Manifest) -> Iterator[Note]:
    """Give the note on what is filled in blocks of which the rest has a source, `told` is what is told otherwise."""
    blocks = {block for key in made for block in blocks_of(key)}
    new = [
        key
        for key in floats({key: want[key] for key in filled if want.kinds.get(key) != "buffer"})
        if key not in told and not is_statistic(key) and not blocks.isdisjoint(blocks_of(key))
    ]
    if new:
        parts = outermost(filled, want)
        listed = list_parts((parts[key] for key in new), (key for key in want if key not in filled))
        yield Note(f"{listed}: new in blocks of which the rest has a source ({count(len(new), 'tensor')})")


def outermost(keys: Collection[str], side: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Give each key the outermost module of which all is among the keys; itself where there is none."""
    found: dict[str, str] = {}
    chosen = set(keys)
    for path, inside in subtrees(side).items():
        if chosen.issuperset(inside):
            for key in inside:
                found.setdefault(key, path[:-1])
    return {key: found.get(key, key) for key in keys}


def _matrices_before(have: Manifest) -> dict[str, str]:
    """Give each key the last matrix or filter before it in the file, which a norm acts on as a rule; "" for the first.

    The norm of a tower that is dropped as well is no loss to the rest.
    """
    last, found = "", {}
    for key, spec in have.items():
        found[key] = last
        last = key if len(spec.shape) > 1 else last
    return found


def _is_norm(part: str, keys: Iterable[str], have: Manifest) -> bool:
    """Tell a norm: vectors of one length, with an offset or statistics, or with its name."""
    shapes = {have[key].shape for key in keys}
    if len(shapes) != 1 or len(shapes.pop()) != 1 or part in have:
        return False
    kinds = {read_name(key).kind for key in keys}
    named = not _NORM_WORDS.isdisjoint(read_name(part.rpartition(".")[2]).words)
    return {"weight", "bias"} <= kinds or "variance" in kinds or (named and "weight" in kinds)
