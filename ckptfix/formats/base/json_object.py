"""JSON objects of checkpoints, without what JSON readers disagree on."""

from __future__ import annotations

import json
from collections import Counter

from ckptfix.errors import LimitExceeded, MalformedFile

MAX_WIDE = 24 << 20
"""Bytes of a text with characters beyond ASCII, which may take four times as much once decoded."""

MAX_CONTAINERS = 1_000_000
"""Lists and maps in a text. A safetensors header has three a tensor, and one for its digest."""

MAX_ITEMS = 2_500_000
"""Commas in a text. A safetensors header has about five a tensor, and two for its digest."""


def check_items(raw: bytes, what: str) -> None:
    """Raise LimitExceeded where the values of a JSON document would take far more memory than its text does."""
    if len(raw) > MAX_WIDE and not raw.isascii():
        raise LimitExceeded(f"{what} has {len(raw)} bytes, some of them beyond ASCII, where {MAX_WIDE} are allowed")
    containers, items = raw.count(b"[") + raw.count(b"{"), raw.count(b",")
    if containers > MAX_CONTAINERS or items > MAX_ITEMS:
        raise LimitExceeded(f"{what} holds some {containers} lists and maps, and {items} items")


def decode_json(raw: bytes, what: str) -> str:
    """Give the text of a JSON document, before it is known to be one.

    Raises MalformedFile where it is not UTF-8, LimitExceeded where it holds too much.
    """
    check_items(raw, what)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedFile(f"{what} is not JSON: {error}") from error


def read_json_object(text: str, what: str) -> dict[str, object]:
    """Read a JSON object. `what` names it in messages: "the header".

    Raises MalformedFile for another text, and for duplicate keys, NaN or infinity, and keys that are not Unicode.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise MalformedFile(f"{what} has the key {twice[:80]!r} twice")
        if escaped:
            for key in entries:
                if not is_unicode(key):
                    raise MalformedFile(f"{what} has a key that is not Unicode: {key[:80]!r}")
        return entries

    # What was decoded is Unicode; only an escape can spell a surrogate.
    escaped = "\\u" in text
    # Only Python takes -0 for 0; most texts have none, and cost nothing for it.
    parse_int = _refuse_minus_zero if "-0" in text else None
    try:
        found = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse_constant, parse_int=parse_int)
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"{what} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise MalformedFile(f"{what} is no JSON object")
    return found


def is_unicode(text: str) -> bool:
    """Tell whether a text can be written as UTF-8; JSON can spell surrogates that cannot."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _refuse_minus_zero(number: str) -> int:
    if number == "-0":
        raise ValueError("-0 is not a whole number for every reader")
    return int(number)
