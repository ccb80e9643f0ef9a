"""Say which parts of a checkpoint are not used: whole modules, blocks of a stack, parts of blocks that are used."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Set

from msgspec import Struct

from ckptfix.counts import count
from ckptfix.inference.company import is_bias, is_statistic, works_for
from ckptfix.inference.copies import subtrees
from ckptfix.inference.dropped import is_trained
from ckptfix.inference.note import Note
from ckptfix.inference.reading import template
from ckptfix.inference.wording import list_names, list_numbers
from ckptfix.tensors import Manifest, Shape

_BLOCK = re.compile(r"(?<![^./])(?P<number>[0-9]+)[./]|_l(?P<layer>[0-9]+)(_reverse)?$")
"""What counts a block of a stack, or the layer of a recurrent network, whose parameters end with it."""
_MANY = 8
"""Tensors up to which a module that is not used may be a head: that is said already."""


class _Block(Struct, frozen=True):
    """A block of a stack: its number, the tensors inside, and their keys."""

    number: int
    inside: frozenset[tuple[str, Shape]]
    keys: frozenset[str]


def find_fewer(unused: Set[str], have: Manifest) -> Iterator[Note]:
    """Give the note on blocks of which nothing is used, where others that are the same inside are."""
    told: dict[str, list[str]] = {}
    keys: set[str] = set()
    for stack, blocks in _stacks(have).items():
        skipped = _skipped(blocks, unused)
        keys.update(*(block.keys for block in skipped))
        if numbers := [block.number for block in skipped]:
            which = f"number{'s' * (len(numbers) > 1)} {list_numbers(numbers)} of the {len(blocks)} in"
            told.setdefault(which, []).append(stack)
    if told:
        listed = "; ".join(f"{which} {list_names(stacks)}" for which, stacks in told.items())
        yield Note(f"blocks are left out: {listed}", frozenset(keys))


def find_parts(unused: Set[str], have: Manifest) -> Iterator[Note]:
    """Give a note on each module of which nothing is used, and one on parts of blocks of which others are."""
    stacks = _stacks(have).values()
    rest = unused - {key for blocks in stacks for block in _skipped(blocks, unused) for key in block.keys}
    modules = _unused_modules(rest, have)
    for module, keys in modules.items():
        yield Note(f"'{module}' is not used: {count(len(keys), 'tensor')}", frozenset(keys))
    rest -= {key for keys in modules.values() for key in keys}
    inside = rest & {key for blocks in stacks for block in blocks if not block.keys <= unused for key in block.keys}
    if parts := [key for key in have if key in inside and _is_weight(key, have)]:
        modules_of = set(map(works_for, parts))
        told = frozenset(key for key in inside if works_for(key) in modules_of)
        yield Note(f"{list_names(parts)}: left out of blocks that are used ({count(len(parts), 'tensor')})", told)


def _unused_modules(unused: Set[str], have: Manifest) -> dict[str, list[str]]:
    """List the outermost modules that are larger than a head, blocks of a stack apart."""
    found: dict[str, list[str]] = {}
    for path, keys in subtrees(have).items():
        inner = path.startswith(tuple(f"{known}." for known in found))
        if len(keys) > _MANY and not inner and not path[:-1].rpartition(".")[2].isdigit() and unused >= set(keys):
            found[path[:-1]] = keys
    return found


def _stacks(have: Manifest) -> dict[str, list[_Block]]:
    """List the blocks of each stack, by the path of the stack."""
    keys: dict[tuple[str, int], dict[str, str]] = {}
    for key in have:
        for found in _BLOCK.finditer(key):
            if found["number"]:
                place, rest = (key[: found.start()].rstrip("./"), int(found["number"])), key[found.end() :]
            else:
                place, rest = (key.rpartition(".")[0], int(found["layer"])), template(key)
            keys.setdefault(place, {})[rest] = key
    stacks: dict[str, list[_Block]] = {}
    for (stack, number), inside in keys.items():
        shapes = frozenset((rest, have[key].shape) for rest, key in inside.items())
        stacks.setdefault(stack, []).append(_Block(number, shapes, frozenset(inside.values())))
    return stacks


def _skipped(blocks: Collection[_Block], unused: Set[str]) -> list[_Block]:
    """List the blocks of which nothing is used, where one that is the same inside is used."""
    taken = {block.inside for block in blocks if not block.keys <= unused}
    return [block for block in blocks if block.inside in taken and block.keys <= unused]


def _is_weight(key: str, have: Manifest) -> bool:
    """Tell a weight that nothing else is said of."""
    spec = have[key]
    return bool(spec.shape) and not is_bias(key) and not is_statistic(key) and is_trained(key, spec)
