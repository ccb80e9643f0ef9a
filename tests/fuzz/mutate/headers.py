"""JSON: the headers of safetensors, and indexes. Values are changed as values, and keys may come twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from tests.fuzz.mutate import raw
from tests.fuzz.mutate.numbers import near, number, text


class Pairs(list[Any]):
    """A JSON object as a list of [key, value], so that a key can come twice."""


def change_safetensors(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change the header, its length or what follows it."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = rng.random()
    if kind < 0.75:
        header = change_json(header, rng, [other[8:] for other in others])
        length = len(header) if rng.random() < 0.9 else near(rng, len(header))
    elif kind < 0.85:
        length = near(rng, length)
    else:
        body = raw.change(body, rng, ())
    return (length % (1 << 64)).to_bytes(8, "little") + header + body


def change_json(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change some values or keys of a JSON text, and the way it is written."""
    root = json.loads(data, object_pairs_hook=lambda pairs: Pairs([list(pair) for pair in pairs]))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _CHANGES[rng.randrange(len(_CHANGES))](root, rng)
    written = _write(root, rng.choice(("", "", "", " ", "\n\t"))).encode("utf-8", "surrogatepass")
    return written + b" " * (-len(written) % 8) if rng.random() < 0.5 else written


def _places(node: Any) -> Iterator[tuple[list[Any], int]]:
    """Give every list with every index in it: a value, or a pair of an object."""
    if isinstance(node, list):
        for index, inner in enumerate(node):
            yield node, index
            yield from _places(inner)


def _place(root: Any, rng: Random, kind: type | None = None) -> tuple[list[Any], int] | None:
    found = [place for place in _places(root) if kind is None or isinstance(place[0][place[1]], kind)]
    return rng.choice(found) if found else None


def _set_number(root: Any, rng: Random) -> None:
    if place := _place(root, rng, int):
        place[0][place[1]] = near(rng, place[0][place[1]])


def _set_text(root: Any, rng: Random) -> None:
    if place := _place(root, rng, str):
        place[0][place[1]] = text(rng)


def _set_other(root: Any, rng: Random) -> None:
    if place := _place(root, rng):
        options = (
            None,
            True,
            1.5,
            "x",
            [],
            Pairs(),
            number(rng),
            [number(rng)] * 70,
            Pairs([["a", 1], ["a", 2]]),
            -0.0,
        )
        holder, index = place
        value = rng.choice(options)
        if isinstance(holder, Pairs):
            holder[index][1] = value
        else:
            holder[index] = value


def _leave_out(root: Any, rng: Random) -> None:
    if place := _place(root, rng):
        # A pair that lacked its value could not be written.
        holder, index = place
        if isinstance(holder, Pairs) or not _is_pair(root, holder):
            del holder[index]


def _repeat(root: Any, rng: Random) -> None:
    if (place := _place(root, rng)) and (isinstance(place[0], Pairs) or not _is_pair(root, place[0])):
        place[0][place[1] : place[1]] = [place[0][place[1]]] * rng.choice((1, 1, 2, 70))


def _swap(root: Any, rng: Random) -> None:
    one, two = _place(root, rng), _place(root, rng)
    if one and two and isinstance(one[0], Pairs) and isinstance(two[0], Pairs):
        pair, other = one[0][one[1]], two[0][two[1]]
        at = rng.randrange(2)
        # A value that came to lie in itself could not be written.
        if at == 0 or not (_holds(pair[1], two[0]) or _holds(other[1], one[0])):
            pair[at], other[at] = other[at], pair[at]


def _wrap(root: Any, rng: Random) -> None:
    if (place := _place(root, rng)) and not isinstance(place[0], Pairs) and not isinstance(place[0][place[1]], str):
        value = place[0][place[1]]
        for _ in range(rng.choice((1, 2, 100, 3000))):
            value = [value]
        place[0][place[1]] = value


def _is_pair(root: Any, holder: list[Any]) -> bool:
    return any(isinstance(owner, Pairs) and owner[index] is holder for owner, index in _places(root))


def _holds(node: Any, wanted: Any) -> bool:
    return node is wanted or any(holder is wanted or holder[index] is wanted for holder, index in _places(node))


_CHANGES: tuple[Callable[[Any, Random], None], ...] = (
    *(_set_number, _set_number, _set_number, _set_text, _set_text, _set_other),
    *(_leave_out, _repeat, _swap, _wrap),
)


def _write(node: Any, gap: str, depth: int = 0) -> str:
    # Deeper than the interpreter allows: brackets only.
    if isinstance(node, Pairs):
        return "{" + ",".join(f"{_key(pair[0])}:{gap}{_write(pair[1], gap, depth + 1)}" for pair in node) + "}"
    if isinstance(node, list):
        depth = 0
        while isinstance(node, list) and not isinstance(node, Pairs) and len(node) == 1:
            node, depth = node[0], depth + 1
        inner = ",".join(_write(item, gap) for item in node) if isinstance(node, list) else _write(node, gap)
        brackets = (isinstance(node, list) and not isinstance(node, Pairs)) + depth
        return "[" * brackets + inner + "]" * brackets
    return json.dumps(node, ensure_ascii=isinstance(node, str) and not node.isprintable())


def _key(key: Any) -> str:
    return json.dumps(key if isinstance(key, str) else str(key))
