"""What a file would have run if it had been unpickled: each name once, with how often and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from ckptfix.formats import Opaque
from ckptfix.formats.audit import Audit
from ckptfix.formats.pickle.values import Global
from ckptfix.report.text import table

NO_PROOF = "no list proves a file safe to unpickle: what these names do is not looked into, and loaders may differ"

_PLACES = 3
"""Places of a name that are kept."""


class Named(Struct, frozen=True):
    """A name that unpickling would have imported, whether it is called anywhere, how often it occurs, and where."""

    name: str
    called: bool
    times: int
    places: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give a row of `inspect --json`."""
        return {
            "name": self.name,
            "called": self.called,
            "times": self.times,
            "place": self.places[0],
            "places": list(self.places),
        }


def list_names(opaque: Sequence[tuple[str, Opaque]]) -> list[Named]:
    """Gather the opaque values of a file by name, in its order."""
    groups: dict[str, list[tuple[str, Opaque]]] = {}
    for place, value in opaque:
        groups.setdefault(str(value), []).append((place, value))
    return [
        Named(
            name,
            any(not isinstance(value, Global) for _, value in found),
            len(found),
            tuple(dict.fromkeys(place for place, _ in found))[:_PLACES],
        )
        for name, found in groups.items()
    ]


def show_security(audit: Audit) -> Iterator[str]:
    """List the names for people."""
    names = list_names(audit.opaque)
    if names:
        yield "unpickling would have called, and ckptfix did not:"
        yield from table(
            (
                "",
                one.name,
                f"{one.times} times" if one.times > 1 else "",
                f"at {', '.join(place or 'the root' for place in one.places)}{'' if one.called else ', only named'}",
            )
            for one in names
        )
    elif audit.refusal:
        yield "no name was found before the fault for which the file is refused"
    else:
        yield "unpickling would call nothing but the constructors of tensors and containers"
    yield from audit.notes
    yield NO_PROOF


def security_document(audit: Audit) -> dict[str, Any]:
    """Give the document of `inspect --security --json`."""
    return {
        "schema_version": 1,
        "opaque": [one.to_json() for one in list_names(audit.opaque)],
        "notes": list(audit.notes),
        "note": NO_PROOF,
        "errors": [audit.refusal.to_json()] if audit.refusal else [],
    }
