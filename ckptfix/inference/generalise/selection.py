"""Write a set of keys as few patterns that match no other key."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from ckptfix.inference.generalise.cover import cover
from ckptfix.inference.generalise.draft import Reach
from ckptfix.inference.generalise.line import Line
from ckptfix.keys import KeyPattern

_DIGITS = re.compile(r"[0-9]+")
_PATTERN_PRICE = 16
_WILDCARD_PRICE = 9
_VAGUE_PRICE = 60
_WHOLE_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")
_FEWEST_LISTED = 3
_LETTER = re.compile(r"[^\W_]")
_SEGMENT = re.compile(r"[A-Za-z]\w*")


def patterns_of(wanted: Collection[str], keys: Collection[str], reach: Reach) -> list[str]:
    """Give patterns that match the wanted keys among all keys and nothing else, in the order of the wanted."""
    if reach == "key by key":
        return list(wanted)
    order = {key: bit for bit, key in enumerate(dict.fromkeys(wanted))}
    covers: dict[str, int] = {}
    ends: dict[str, set[str]] = defaultdict(set)
    for key, bit in order.items():
        for text in _patterns(key):
            covers[text] = covers.get(text, 0) | 1 << bit
            ends[text].add(key.rpartition(".")[2])
    lines = [Line((text,), (), bits) for text, bits in covers.items() if not _hides(text, ends[text])]
    lines = [line for line in lines if line.covers.bit_count() > 1 or line.patterns[0] in order]
    lines = [line for line in lines if line.patterns[0] == "**" or _LETTER.search(line.patterns[0])]

    def check(line: Line) -> int:
        bits = 0
        for key, _ in KeyPattern.parse(line.patterns[0]).matches(keys):
            if key not in order:
                return 0
            bits |= 1 << order[key]
        return bits

    chosen = cover(lines, (1 << len(order)) - 1, check, lambda line: _price(line.patterns[0]))
    return _joined([line.patterns[0] for line in sorted(chosen, key=lambda line: line.covers & -line.covers)])


def _hides(pattern: str, ends: Collection[str]) -> bool:
    """Tell whether a wildcard at the end stands for one text only, which would say more."""
    return pattern.endswith(".*") and len(ends) == 1


def _joined(patterns: Sequence[str]) -> list[str]:
    """Write patterns that differ in one number as one that lists the numbers: `blocks.{i:6|7|8}.**`."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pattern in patterns:
        for number in _WHOLE_NUMBER.finditer(pattern):
            alike[pattern[: number.start()], pattern[number.end() :]].append(number[0])
    joined: dict[str, str] = {}
    for (before, after), numbers in sorted(alike.items(), key=lambda item: -len(item[1])):
        parts = [f"{before}{number}{after}" for number in numbers]
        if len(numbers) >= _FEWEST_LISTED and not any(part in joined for part in parts):
            joined |= dict.fromkeys(parts, f"{before}{{i:{'|'.join(numbers)}}}{after}")
    return list(dict.fromkeys(joined.get(pattern, pattern) for pattern in patterns))


def _price(pattern: str) -> float:
    """What a pattern costs a reader: letters count little, wildcards more, most where hardly a word is left."""
    segments = pattern.split(".")
    wildcards = sum("*" in segment for segment in segments)
    first = next((segment for segment in segments if segment != "**"), "")
    vague = pattern != "**" and not _SEGMENT.match(first)
    return _PATTERN_PRICE + len(pattern) + _WILDCARD_PRICE * wildcards + _VAGUE_PRICE * vague


def _patterns(key: str) -> Iterator[str]:
    """Write the key itself, and with wildcards for numbers, for the last segment, and for segments at either end."""
    yield key
    if any(mark in key for mark in "{}*"):
        return
    starred = _DIGITS.sub("*", key)
    yield starred
    for text in dict.fromkeys((key, starred)):
        segments = text.split(".")
        yield from _ends(segments)
        for place, segment in enumerate(segments):
            for starred_segment in ("*", *_starred(segment)):
                yield ".".join((*segments[:place], starred_segment, *segments[place + 1 :]))


def _starred(segment: str) -> Iterator[str]:
    """Put a wildcard for one of the parts between underscores."""
    parts = segment.split("_")
    for place in range(len(parts) if len(parts) > 1 else 0):
        yield "_".join((*parts[:place], "*", *parts[place + 1 :]))


def _ends(segments: Sequence[str]) -> Iterator[str]:
    for length in range(1, len(segments)):
        yield ".".join((*segments[:length], "**"))
        yield ".".join(("**", *segments[length:]))
        if length > 1:
            yield ".".join(("**", *segments[length - 1 : -1], "*"))
    yield "**"
