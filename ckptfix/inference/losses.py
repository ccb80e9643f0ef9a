"""Say what a recipe loses, and what it makes up, though every target key has its tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from ckptfix.counts import count
from ckptfix.inference.company import is_bias, is_statistic, works_for
from ckptfix.inference.left_out import find_fewer
from ckptfix.inference.link import Link
from ckptfix.inference.names import read_name
from ckptfix.inference.note import Note
from ckptfix.inference.wording import list_names
from ckptfix.tensors import Manifest, Shape


def find_losses(
    links: Sequence[Link], unused: Set[str], filled: Sequence[str], have: Manifest, want: Manifest
) -> Iterator[Note]:
    """Give the notes: on what is resized, on biases and statistics without a place, on blocks that are left out.

    `unused` are source keys of which nothing is made, `filled` target keys that keep their initial value.
    """
    yield from _resized(links, have, want)
    yield from _biases(links, unused, want)
    yield from _statistics(links, unused, filled, want)
    yield from find_fewer(unused, have)


def _resized(links: Iterable[Link], have: Manifest, want: Manifest) -> Iterator[Note]:
    alike: dict[str, list[str]] = {}
    for link in links:
        if link.resize is not None:
            [source], [target] = link.source_keys, link.target_keys
            alike.setdefault(_tell_resize(link.resize, have[source].shape, want[target].shape), []).append(target)
    for told, keys in alike.items():
        yield Note(f"{list_names(keys)}: {told}")


def _tell_resize(fields: Mapping[str, object], old: Shape, new: Shape) -> str:
    """Say what becomes of the axes that differ, of which only interpolation changes several."""
    changed = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
    before, after = changed[0]
    match fields.get("mode"):
        case "crop":
            lost = before - after
            kept = f"the first {after:,} of {before:,} rows are" if after > 1 else f"the first of {before:,} rows is"
            return f"{kept} taken, the other{f' {lost:,} are' if lost > 1 else ' is'} lost"
        case "pad":
            more = after - before
            made = f"each of the {more:,} new ones" if more > 1 else "the new one"
            return (
                f"{count(before, 'row')} become{'s' * (before == 1)} {after:,}: {made} is the {fields['fill']} of all"
            )
        case "sum":
            return f"{count(before, 'input channel')} become {after}, their sum"
        case "tile":
            become = f"{count(before, 'input channel')} become{'s' * (before == 1)} {after}"
            return f"{become}: taken in turn, and scaled by {before}/{after}"
        case mode:
            extents = (" x ".join(map(str, side)) for side in zip(*changed, strict=True))
            return f"resampled from {' to '.join(extents)} ({mode})"


def _biases(links: Iterable[Link], unused: Iterable[str], want: Manifest) -> Iterator[Note]:
    """Tell the biases that are left of modules whose weights are used, where the target's modules have none."""
    kept = {works_for(key) for key in want if is_bias(key)}
    targets = {module: target for module, target in _modules(links).items() if works_for(target) not in kept}
    alike: dict[str, list[str]] = {}
    for key in unused:
        if is_bias(key) and (target := targets.get(works_for(key))) is not None:
            alike.setdefault(want.owners.get(target, ""), []).append(key)
    for owner, keys in alike.items():
        what, them = (f"{len(keys)} biases are", "them") if len(keys) > 1 else ("a bias is", "it")
        where = f"the target's {owner}" if owner else "the target"
        yield Note(f"{what} left out ({list_names(keys)}): {where} has no place for {them}", frozenset(keys))


def _statistics(links: Sequence[Link], unused: Set[str], filled: Iterable[str], want: Manifest) -> Iterator[Note]:
    """Tell the norms that have running statistics on one side only."""
    modules = _modules(links)
    lost = {works_for(key) for key in unused if is_statistic(key)} & modules.keys()
    if lost:
        owners = sorted({owner for module in lost if (owner := want.owners.get(modules[module]))})
        where = f"the target's {' or '.join(owners)}" if owners else "the target"
        listed = list_names(module for module in modules if module in lost)
        yield Note(
            f"the running mean and variance of {count(len(lost), 'norm')} are left out ({listed}): {where} has none",
            frozenset(key for key in unused if is_statistic(key) and works_for(key) in lost),
        )
    made = set(map(works_for, modules.values()))
    if fresh := dict.fromkeys(works_for(key) for key in filled if is_statistic(key) and works_for(key) in made):
        what = f"{count(len(fresh), 'norm')} start{'s' * (len(fresh) == 1)}"
        yield Note(f"{what} with a fresh running mean and variance ({list_names(fresh)})")


def _modules(links: Iterable[Link]) -> dict[str, str]:
    """Give a target key that the weight of each source module goes to."""
    modules: dict[str, str] = {}
    for link in links:
        for key in link.source_keys:
            if read_name(key).kind in ("weight", "") and not is_bias(key):
                modules[works_for(key)] = link.target_keys[0]
    return modules
