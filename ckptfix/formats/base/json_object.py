"""JSON objects of checkpoints, without what JSON readers disagree on."""

from __future__ import annotations

import json

from ckptfix.errors import MalformedFile


def read_json_object(raw: bytes, what: str) -> dict[str, object]:
    """Read a JSON object. `what` names it in messages: "the header".

    Raises MalformedFile for another text, and for duplicate keys, NaN or infinity, and keys that are not Unicode.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries: dict[str, object] = {}
        for key, value in pairs:
            if key in entries:
                raise MalformedFile(f"{what} has the key {key[:80]!r} twice")
            if not is_unicode(key):
                raise MalformedFile(f"{what} has a key that is not Unicode: {key[:80]!r}")
            entries[key] = value
        return entries

    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=_refuse_constant)
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
