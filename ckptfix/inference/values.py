"""What values tell where names, shapes and order do not: which vector of a norm is which parameter.

The vectors are told apart over all norms of a file whose parameters have the same last words, whatever these mean.
Nothing is told unless every step is clear:

1. A scale and a variance are positive, an offset and a mean are not: at least 95 % of all elements against at most
   80 %, and no single norm says the contrary. In trained batch and layer norms it is 99 % and more against 10 to 70 %.
   The mean of what a rectifier gives is positive too: then nothing is told.
2. A variance has no negative element, and a longer tail than a scale, mean over median: it goes with the square of a
   filter's length, which the norm itself leaves free. So it is in 83 to 100 % of the norms of a trained model.
3. A mean goes with that length too, an offset does not: the ranks of its magnitudes follow those of the variance more
   closely, in 75 to 100 % of the norms.

In 2 and 3 the norms vote, and the majority must be three standard deviations from that of a coin: random numbers give
one in 400 cases each. In fresh norms, ones and zeros, only a scale and an offset without mean and variance are told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckptfix.formats import Checkpoint, Reader
from ckptfix.inference.infer import Inference
from ckptfix.inference.names import ParamKind
from ckptfix.inference.norms import find_norms, link_norms, split_key
from ckptfix.tensors import DType, Manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.floating[Any]]
    Vectors = Mapping[str, Vector]
    """The values of one norm by the last words of their keys, each [length]."""

_POSITIVE, _MIXED = 0.95, 0.8
_DEVIATIONS = 3.0
_LEAST_ELEMENTS = 64
"""Of a parameter in all norms: fewer may have their signs by chance."""
_LEAST_LENGTH = 8
"""Of a norm that votes."""


def tell_norms(found: Inference, source: Checkpoint, have: Manifest, want: Manifest) -> Inference:
    """Link what is open of norms by the values of the source; `have` is the part of it that was inferred from.

    Reads no tensor unless a vector of a norm whose names say nothing is a candidate for an open target; then the
    vectors of all such norms. Raises what reading raises.
    """
    open_ = [guess for guess in found.guesses if guess.rivals and not guess.by_blocks]
    asked = {split_key(key)[0] for guess in open_ for key in guess.candidates}
    norms = [norm for norm in find_norms(have).values() if not norm.is_named]
    told: dict[str, ParamKind] = {}
    for words in sorted({norm.words for norm in norms if norm.module in asked}, key=sorted):
        alike = [norm.vectors for norm in norms if norm.words == words]
        for word, kind in tell_kinds(_read(source, alike)).items():
            if told.setdefault(word, kind) != kind:
                return found  # one word for two parameters
    return link_norms(found, have, want, told)


def _read(source: Checkpoint, norms: Sequence[Mapping[str, str]]) -> list[Vectors]:
    """Read norms, but none with a dtype that no number can be made of, or with values that are no finite numbers."""
    import numpy as np

    from ckptfix.inference.example.bits import Tensors

    found: list[Vectors] = []
    with Reader() as reader:
        tensors = Tensors(source, reader)
        for norm in norms:
            bits = {word: tensors.read(key, DType.F64) for word, key in norm.items()}
            vectors = {word: read.view(np.float64) for word, read in bits.items() if read is not None}
            if len(vectors) == len(norm) and all(np.isfinite(vector).all() for vector in vectors.values()):
                found.append(vectors)
    return found


def tell_kinds(norms: Sequence[Vectors]) -> dict[str, ParamKind]:
    """Tell what each word stands for in norms that have the same words; nothing where that is not clear."""
    if not norms:
        return {}
    words = sorted(norms[0])
    elements = sum(len(norm[words[0]]) for norm in norms)
    if elements < _LEAST_ELEMENTS:
        return {}
    shares = {word: sum(_count(norm[word] > 0) for norm in norms) / elements for word in words}
    positive = [word for word in words if shares[word] >= _POSITIVE]
    mixed = [word for word in words if shares[word] <= _MIXED]
    if not len(positive) == len(mixed) == len(words) / 2:
        return {}
    if any(_count(norm[one] > 0) < _count(norm[other] > 0) for norm in norms for one in positive for other in mixed):
        return {}
    if len(words) == 2:
        return {positive[0]: "weight", mixed[0]: "bias"}
    variance = _elect(norms, positive, _tail)
    if variance is None or any(_count(norm[variance] < 0) for norm in norms):
        return {}
    mean = _elect(norms, mixed, lambda norm, word: _follow(norm[word], norm[variance]))
    if mean is None:
        return {}
    (scale,), (offset,) = ({*positive} - {variance}, {*mixed} - {mean})
    return {scale: "weight", offset: "bias", mean: "mean", variance: "variance"}


def _count(mask: NDArray[np.bool_]) -> int:
    return int(mask.sum())


def _elect(norms: Sequence[Vectors], words: Sequence[str], weigh: Callable[[Vectors, str], float]) -> str | None:
    """Let the norms vote which of two words weighs more; None where the majority may be chance."""
    one, other = words
    leads = [
        lead
        for norm in norms
        if len(norm[one]) >= _LEAST_LENGTH and (lead := weigh(norm, one) - weigh(norm, other)) and math.isfinite(lead)
    ]
    ahead = sum(lead > 0 for lead in leads) * 2 - len(leads)
    return (one if ahead > 0 else other) if abs(ahead) >= _DEVIATIONS * math.sqrt(len(leads)) > 0 else None


def _tail(norm: Vectors, word: str) -> float:
    """Give the mean of a positive vector over its median; NaN where most of it is zero."""
    import numpy as np

    median = float(np.median(norm[word]))
    return float(norm[word].mean()) / median if median > 0 else math.nan


def _follow(one: Vector, other: Vector) -> float:
    """Give Spearman's correlation of the magnitudes of two vectors; NaN where one is constant."""
    import numpy as np

    sides = [np.abs(vector) for vector in (one, other)]
    if any(side.min() == side.max() for side in sides):
        return math.nan
    ranks = [np.argsort(np.argsort(side)) for side in sides]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
