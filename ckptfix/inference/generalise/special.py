"""Find blocks that are made otherwise than those beside them: they go first, and the rest follows one pattern."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ckptfix.inference.generalise.widen import count_common
from ckptfix.inference.reading import NUMBER, template

_DEEPEST = 3
"""Numbers in a key that may count blocks, from the left."""


def special_moves(moves: Mapping[str, str]) -> list[frozenset[str]]:
    """Give keys of special blocks: those of `features.1`, say, whose `conv.2` is a norm and not a convolution.

    There is one set for each depth at which blocks contradict most of those that are numbered with them.
    """
    found = [_special(moves, depth) for depth in range(_DEEPEST)]
    return list(dict.fromkeys(keys for keys in found if keys and len(keys) < len(moves)))


def _special(moves: Mapping[str, str], depth: int) -> frozenset[str]:
    blocks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, new in moves.items():
        numbers = list(NUMBER.finditer(key))
        if depth < len(numbers):
            stop = numbers[depth].end()
            blocks[key[:stop]].append((key[stop:], new))
    votes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    parts = {block: _without_beginning(pairs) for block, pairs in blocks.items()}
    for block, pairs in parts.items():
        for rest, new in pairs:
            votes[template(block), rest][new] += 1
    return frozenset(
        block + rest
        for block, pairs in parts.items()
        if any(_is_outvoted(new, votes[template(block), rest]) for rest, new in pairs)
        for rest, _ in pairs
    )


def _is_outvoted(new: str, votes: Counter[str]) -> bool:
    [(other, count)] = votes.most_common(1)
    return other != new and 2 * count > votes.total()


def _without_beginning(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out the segments that all new keys of a block begin with."""
    split = [new.split(".") for _, new in pairs]
    shared = count_common(split, min(map(len, split)) - 1)
    return [(rest, ".".join(segments[shared:])) for (rest, _), segments in zip(pairs, split, strict=True)]
