"""Parameters that work together: the halves of a weight, a weight and its adapters, a bias and its weight."""

from __future__ import annotations

import re

from ckptfix.inference.names import read_name

_LAYER = re.compile(r"_l[0-9]+(_reverse)?$")
"""How torch ends the parameters of a layer of a recurrent network, and of a direction of it."""


def is_bias(key: str) -> bool:
    """Tell a bias by its name."""
    return read_name(key).kind == "bias" or (is_recurrent(key) and _last(key).startswith("bias_"))


def is_statistic(key: str) -> bool:
    """Tell a running mean or variance by its name."""
    return read_name(key).kind in ("mean", "variance")


def works_for(key: str) -> str:
    """Name what a parameter is one of: `conv` of `conv.bias`, `rnn.ih_l0` of `rnn.bias_ih_l0`."""
    if is_recurrent(key):
        return key.removesuffix(_last(key)) + _last(key).partition("_")[2]
    return read_name(key).parent


def owner_of(key: str) -> str:
    """Give the module that a parameter works for: adapters work for the module that they are attached to."""
    module = key.rpartition(".")[0].partition(".lora_")[0].removesuffix(".base_layer")
    return module or key.partition("_")[0]


def belong(key: str, other: str) -> bool:
    """Tell whether two parameters of a module work together: by their kind, or by the word that they begin with.

    What is left of a weight says nothing against a bias. The layers of a recurrent network, whose parameters are all of
    one module, stand for themselves.
    """
    if layer_of(key) != layer_of(other):
        return False
    one, last = _last(key), _last(other)
    if read_name(key).kind == "bias":
        return read_name(other).kind == "weight" and not last.startswith("weight_")
    if _is_part(key) and _is_part(other):
        return True
    return "_" in one and one.partition("_")[0] == last.partition("_")[0]


def layer_of(key: str) -> str:
    """Give the ending that tells the layer and direction of a recurrent network; nothing where a key has none."""
    found = _LAYER.search(key)
    return found[0] if found else ""


def is_recurrent(key: str) -> bool:
    """Tell a parameter of a layer of a recurrent network, as torch names them."""
    return bool(layer_of(key)) and _last(key).startswith(("weight_", "bias_"))


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _is_part(key: str) -> bool:
    """Tell a parameter that works together with others of its module from one that stands for itself."""
    return read_name(key).kind in ("weight", "bias") or "weight" in _last(key) or "original" in _last(key)
