"""A file that holds a model more than once: the weights in training and their average, a student and its teacher."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckptfix.tensors import TensorSpec

_WRAPPER = re.compile(r"^(?:module\.|_orig_mod\.|model\.)*")
_AVERAGES = ("ema", "teacher", "shadow", "average", "averaged", "swa", "target", "momentum", "key", "k")


def find_copies(tensors: Mapping[str, TensorSpec], wanted: int) -> dict[str, list[str]]:
    """Give the keys of each complete copy by the first word of its keys; nothing where there is one model only.

    `wanted` is the number of tensors that one model has: two equal towers of a model are no copies of it.
    """
    groups: dict[str, dict[str, str]] = {}
    for key in tensors:
        head, _, rest = key.partition(".")
        if rest:
            groups.setdefault(head, {})[_WRAPPER.sub("", rest)] = key
    shapes = {
        head: frozenset((rest, tensors[key].shape) for rest, key in inside.items()) for head, inside in groups.items()
    }
    largest = max(shapes.values(), key=len, default=frozenset())
    copies = [head for head, found in shapes.items() if len(found & largest) > 0.98 * len(largest) > 2]
    one_is_enough = wanted < 1.5 * len(largest)
    return {head: list(groups[head].values()) for head in copies} if len(copies) > 1 and one_is_enough else {}


def choose_copy(copies: Mapping[str, list[str]]) -> str:
    """Choose the weights that were trained, not an average or a teacher of them; of several the first."""
    trained = [head for head in copies if not set(re.split(r"[_-]", head.lower())) & set(_AVERAGES)]
    return (trained or list(copies))[0]
