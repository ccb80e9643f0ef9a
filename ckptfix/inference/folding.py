"""What can be folded into a weight before it is loaded, and the function of the op `call` that does it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ckptfix.inference.names import read_name
from ckptfix.tensors import Manifest

_LAST_NUMBER = re.compile(r"(?:(?<=\.)|^)[0-9]+$")
_LENGTHS = ({"weight_g", "weight_v"}, {"original0", "original1"})
"""The length and the direction of a normalised weight, in both ways in which torch names them."""


def find_call(key: str, other: str) -> str | None:
    """Name the function that makes a weight of two parts of a module; None where there is none."""
    if ".lora_" in other:
        return "merge_lora"
    return "fold_weight_norm" if {key.rpartition(".")[2], other.rpartition(".")[2]} in _LENGTHS else None


def find_normed_layers(norms: Iterable[str], have: Manifest, reads: Mapping[str, str]) -> dict[str, str]:
    """Give the linear layers that a batch norm of the same length comes right after, `2` after `1`, and their norms.

    With another number between them, there may be an activation between them, and nothing can be folded.
    """
    found: dict[str, str] = {}
    shapes = {reads[key]: spec.shape for key, spec in have.items() if key in reads}
    lengths = {read_name(place).parent: shape for place, shape in shapes.items() if len(shape) == 1}
    for norm in norms:
        number = _LAST_NUMBER.search(norm)
        before = f"{norm[: number.start()]}{int(number[0]) - 1}" if number else ""
        weight = shapes.get(f"{before}.weight", ())
        if before and len(weight) == 2 and weight[:1] == lengths.get(norm):
            found[before] = norm
    return found
