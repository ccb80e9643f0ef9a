"""Vectors that part from the weights that they go with: norms and biases that fit elsewhere by their length alone."""

from __future__ import annotations

from ckptfix.inference.infer import Inference
from ckptfix.inference.leaders import find_leaders_by_key
from ckptfix.inference.link import Open
from ckptfix.inference.reading import read_keys
from ckptfix.tensors import Manifest, TensorSpec

_MOST_PARTED = 0.1
"""Of the vectors that stay with their weights, how many may part for it to be an exception, and no other convention."""
_LEAST_MADE = 0.5
"""Of the target's elements, what must have a source for equal names to speak for a vector whose weight has none."""


def find_parted(found: Inference, have: Manifest, want: Manifest) -> dict[str, Open]:
    """Find the vectors whose weights do not correspond: target key to reason.

    Of two networks of other widths, some norms have the length of others; their convolutions tell that they are not
    the same. Where names are but numbers, nothing is known of their weights.
    """
    if not found.reads:
        return {}
    leaders = find_leaders_by_key(have, found.reads), find_leaders_by_key(want, read_keys(want))
    guessed = {key for guess in found.guesses for key in guess.candidates}
    became: dict[str, set[str]] = {}
    for link in found.links:
        for key in link.source_keys:
            became.setdefault(key, set()).update(link.target_keys)
    made = {key for targets in became.values() for key in targets}
    is_same = sum(want[key].numel for key in made) >= _LEAST_MADE * want.numel
    chance: dict[str, Open] = {}
    exchanged: dict[str, Open] = {}
    together = 0
    for link in found.links:
        if link.pair is None:
            continue
        source, target = link.pair
        one, other = leaders[0].get(source), leaders[1].get(target)
        if one is None or other is None or one in guessed:
            continue
        if one not in became and other in found.left_targets and not (source == target and is_same):
            chance[target] = Open(f"its length may fit by chance: '{other}', which it goes with, has no source")
        elif one in became and other in made and other not in became[one] and _are_filters(have[one], want[other]):
            exchanged[target] = Open(f"it goes with '{one}', which becomes another weight than '{other}'")
        else:
            together += one in became and other in became[one]
    return chance if len(exchanged) > _MOST_PARTED * together else chance | exchanged


def _are_filters(*weights: TensorSpec) -> bool:
    """Tell whether all are of convolutions, which norms stay with; beside a matrix a norm may stand for itself."""
    return all(len(weight.shape) > 2 for weight in weights)
