"""The receipt that an adapted checkpoint carries: what made each tensor, and its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ckptfix.errors import MalformedFile
from ckptfix.formats import Checkpoint
from ckptfix.tensors import DType

RECEIPT_KEY = "ckptfix"


@dataclass(frozen=True)
class Entry:
    """One output tensor. `rule` counts from 1 and is None for an untouched tensor."""

    made: Literal["loaded", "filled"]
    rule: int | None
    blake3: str | None


@dataclass(frozen=True)
class Receipt:
    """What is written into the output. It names no path and no time, so equal inputs give equal files."""

    version: str
    recipe: str
    source: str | None
    dtype: str | None
    """What every floating tensor was cast to after the recipe, if that was asked for."""
    entries: Mapping[str, Entry]

    @property
    def filled(self) -> frozenset[str]:
        """The keys made without a source tensor."""
        return frozenset(key for key, entry in self.entries.items() if entry.made == "filled")

    def to_text(self) -> str:
        """Write as one line of JSON; its length depends on no digest's value."""
        document = {
            "schema_version": 1,
            "ckptfix": self.version,
            "recipe": self.recipe,
            "source": self.source,
            "dtype": self.dtype,
            "tensors": {
                key: {"made": entry.made, "rule": entry.rule, "blake3": entry.blake3}
                for key, entry in self.entries.items()
            },
        }
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, where: str) -> Receipt:
        """Read a receipt. Raises MalformedFile where the text is none."""
        try:
            document = json.loads(text)
            entries = {
                str(key): Entry(entry["made"], entry["rule"], entry["blake3"])
                for key, entry in document["tensors"].items()
            }
            receipt = cls(document["ckptfix"], document["recipe"], document["source"], document["dtype"], entries)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedFile("the receipt under 'ckptfix' cannot be read", where=where) from error
        known = receipt.dtype is None or receipt.dtype in list(DType)
        if not known or any(entry.made not in ("loaded", "filled") for entry in entries.values()):
            raise MalformedFile("the receipt under 'ckptfix' cannot be read", where=where)
        return receipt


def read_receipt(checkpoint: Checkpoint) -> Receipt | None:
    """Read the receipt that a checkpoint carries, if any. Raises MalformedFile for one that is none."""
    text = checkpoint.metadata.get(RECEIPT_KEY)
    return None if text is None else Receipt.from_text(text, str(checkpoint.path))
