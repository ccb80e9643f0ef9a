"""What inference finds: which source tensors make which target tensors, and how."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

Evidence = Literal["names", "shapes", "order", "classes", "values", "behaviour"]


class Term(Struct, frozen=True):
    """One tensor of a layout, or several that lie along an axis of it: `experts.0.w1`, `experts.1.w1`, ... along `e`.

    With `axis`, `keys` are in the order of the axis and all of one template that counts from 0; without, there is
    exactly one key.
    """

    keys: tuple[str, ...]
    axis: str | None = None

    @classmethod
    def of(cls, key: str) -> Term:
        """Make the term of a single tensor."""
        return cls((key,))


class Link(Struct, frozen=True):
    """Source terms and the target terms that they make together.

    `layout` is in the layout language, terms in the order of `sources -> targets`, and None where one tensor goes to
    one as it is; `sizes` are the extents that it needs. `resize` holds the fields of a resize rule that acts on the
    one target afterwards. `confidence` is the probability, from 0 to 1, that the link is right; it rests on `evidence`,
    and `why` says more, where there is more to say.
    """

    sources: tuple[Term, ...]
    targets: tuple[Term, ...]
    layout: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    resize: Mapping[str, object] | None = None
    confidence: float = 1.0
    why: str = ""
    evidence: frozenset[Evidence] = frozenset()

    @classmethod
    def rename(
        cls,
        source: str,
        target: str,
        confidence: float = 1.0,
        why: str = "",
        evidence: frozenset[Evidence] = frozenset(),
    ) -> Link:
        """Make the link of one tensor to one, as it is."""
        return cls((Term.of(source),), (Term.of(target),), confidence=confidence, why=why, evidence=evidence)

    @property
    def pair(self) -> tuple[str, str] | None:
        """The source key and the target key, where there is one of each."""
        if len(self.source_keys) != 1 or len(self.target_keys) != 1:
            return None
        return self.source_keys[0], self.target_keys[0]

    @property
    def source_keys(self) -> tuple[str, ...]:
        """All source keys, in the order of the layout."""
        return tuple(key for term in self.sources for key in term.keys)

    @property
    def target_keys(self) -> tuple[str, ...]:
        """All target keys, in the order of the layout."""
        return tuple(key for term in self.targets for key in term.keys)

    @property
    def reason(self) -> str:
        """What the link rests on, in words."""
        return self.why or name_evidence(self.evidence)

    def unstacked(self) -> list[Link]:
        """Give a link for each place of the axis along which all terms are stacked, the link itself where some are not.

        What is stacked on both sides goes one by one.
        """
        terms = (*self.sources, *self.targets)
        if self.layout is None or not all(term.axis for term in terms):
            return [self]
        inner = re.sub(rf"\b{terms[0].axis} ", "", self.layout)
        return [
            replace(
                self,
                sources=tuple(Term.of(term.keys[place]) for term in self.sources),
                targets=tuple(Term.of(term.keys[place]) for term in self.targets),
                layout=None if inner == "... -> ..." else inner,
            )
            for place in range(len(terms[0].keys))
        ]


class Open(Struct, frozen=True):
    """Why a target key stays open, and the source keys of which it may be made: no recipe drops these."""

    why: str
    beside: tuple[str, ...] = ()


def name_evidence(kinds: Iterable[Evidence]) -> str:
    """Say which kinds of evidence speak for something: `by names, shapes`; nothing where none does."""
    names = ", ".join(sorted(kinds))
    return f"by {names}" if names else ""
