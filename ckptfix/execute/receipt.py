"""The receipt that an adapted checkpoint carries: what made each tensor, its digest, and the digest of all the rest.

The digests of the tensors cover their bytes; `header` covers everything that the file says beside them: names, shapes,
dtypes, metadata, and the receipt's own words. So a changed bit of any of these shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.digest import NO_DIGEST, hash_document
from ckptfix.errors import MalformedFile
from ckptfix.formats import Checkpoint
from ckptfix.tensors import DType, TensorSpec

RECEIPT_KEY = "ckptfix"
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_FIELDS = ("ckptfix", "recipe", "source", "dtype", "header")
_VERSION = 3
_BEGINNING = f'{{"schema_version":{_VERSION},"ckptfix":'


class Entry(Struct, frozen=True, gc=False):
    """One output tensor. `rule` counts from 1 and is None for an untouched tensor."""

    made: Literal["loaded", "filled"]
    rule: int | None
    blake3: str | None

    def to_text(self) -> str:
        """Write as JSON."""
        rule = "null" if self.rule is None else self.rule
        blake3 = "null" if self.blake3 is None else _to_json(self.blake3)
        return f'{{"made":"{self.made}","rule":{rule},"blake3":{blake3}}}'


class Receipt(Struct, frozen=True):
    """What is written into the output. It names no path and no time, so equal inputs give equal files."""

    version: str
    recipe: str
    source: str | None
    dtype: str | None
    """What every floating tensor was cast to after the recipe, if that was asked for."""
    entries: Mapping[str, Entry]
    header: str = NO_DIGEST
    """The digest that `seal` gives."""

    def seal(self, tensors: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> Receipt:
        """Give the receipt with the digest of a file's canonical header: its tensors and metadata, and the receipt."""
        others = {name: text for name, text in metadata.items() if name != RECEIPT_KEY}
        words = replace(self, header=NO_DIGEST).to_text()
        specs = {key: str(spec) for key, spec in tensors.items()}
        return replace(self, header=hash_document([specs, others, words]))

    @property
    def filled(self) -> frozenset[str]:
        """The keys made without a source tensor."""
        return frozenset(key for key, entry in self.entries.items() if entry.made == "filled")

    def to_text(self) -> str:
        """Write as one line of JSON; its length depends on no digest's value."""
        document = {
            "schema_version": _VERSION,
            "ckptfix": self.version,
            "recipe": self.recipe,
            "source": self.source,
            "dtype": self.dtype,
            "header": self.header,
        }
        entries = ",".join(f"{_to_json(key)}:{entry.to_text()}" for key, entry in self.entries.items())
        return f'{_to_json(document)[:-1]},"tensors":{{{entries}}}}}'

    @classmethod
    def from_text(cls, text: str, where: str) -> Receipt:
        """Read a receipt. Raises MalformedFile where the text is none."""
        try:
            document = json.loads(text)
            entries = {
                str(key): Entry(entry["made"], entry["rule"], entry["blake3"])
                for key, entry in document["tensors"].items()
            }
            version, recipe, source, dtype, header = map(document.__getitem__, _FIELDS)
            receipt = cls(version, recipe, source, dtype, entries, header)
            known = receipt.to_text() == text
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedFile("the receipt under 'ckptfix' cannot be read", where=where) from error
        known = known and (receipt.dtype is None or receipt.dtype in list(DType))
        if not known or any(entry.made not in ("loaded", "filled") for entry in entries.values()):
            raise MalformedFile("the receipt under 'ckptfix' cannot be read", where=where)
        return receipt


def read_receipt(checkpoint: Checkpoint) -> Receipt | None:
    """Read the receipt that a checkpoint carries, if any.

    Raises MalformedFile for one that is none, or that lies under another name: a flipped bit may have renamed it.
    """
    text = checkpoint.metadata.get(RECEIPT_KEY)
    if text is not None:
        return Receipt.from_text(text, str(checkpoint.path))
    for name, other in checkpoint.metadata.items():
        if other.startswith(_BEGINNING):
            raise MalformedFile(f"has a receipt under {name!r} instead of '{RECEIPT_KEY}'", where=str(checkpoint.path))
    return None
