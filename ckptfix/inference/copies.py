"""A file that holds a model more than once: the weights in training and their average, a student and its teacher."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckptfix.tensors import TensorSpec

_WRAPPER = re.compile(r"^(?:module\.|_orig_mod\.|model\.)*")
_AVERAGES = ("ema", "teacher", "shadow", "average", "averaged", "swa", "target", "momentum", "key", "k")


def find_copies(tensors: Mapping[str, TensorSpec], wanted: int) -> dict[str, list[str]]:
    """Give the keys of each complete copy by the first word of its keys; nothing where there is one model only.

    Copies have the same tensors to the last, there is next to nothing beside them, and one of them is about as large as
    the number of tensors `wanted`: equal towers of a model are no copies of it.
    """
    groups: dict[str, dict[str, str]] = {}
    for key in tensors:
        head, _, rest = key.partition(".")
        if rest:
            groups.setdefault(head, {})[_WRAPPER.sub("", rest)] = key
    shapes = {head: {(rest, tensors[key].shape) for rest, key in inside.items()} for head, inside in groups.items()}
    largest = max(shapes.values(), key=len, default=set())
    copies = [head for head, found in shapes.items() if found == largest and len(found) > 2]
    covered = sum(len(groups[head]) for head in copies)
    if len(copies) < 2 or covered < 0.9 * len(tensors) or wanted > 1.5 * len(largest):
        return {}
    return {head: list(groups[head].values()) for head in copies}


def choose_copy(copies: Mapping[str, list[str]]) -> str | None:
    """Choose the weights that were trained, where all others are an average or a teacher of them; else None."""
    trained = [head for head in copies if not set(re.split(r"[_-]", head.lower())) & set(_AVERAGES)]
    return trained[0] if len(trained) == 1 else None
