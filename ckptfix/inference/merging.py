"""Patches merged two by two, as Swin transformers do: four become one, whose channels come in one of two orders.

OpenMMLab unfolds: the four values of each channel lie side by side, `(c h w)`. Elsewhere the channels of each patch
do, `(w h c)`. A file of OpenMMLab is told by what it calls its attention.
"""

from __future__ import annotations

from collections.abc import Iterable

from ckptfix.tensors import Manifest


def is_channel_first(keys: Iterable[str]) -> bool:
    """Tell whether the four values of a channel lie side by side."""
    return any(".w_msa." in key for key in keys)


def is_merging(key: str, manifest: Manifest) -> bool:
    """Tell whether a tensor is of a module that merges patches: its matrix halves the channels of four."""
    module = ".".join(key.split(".")[:-2])
    shape = manifest[matrix].shape if (matrix := f"{module}.reduction.weight") in manifest else ()
    return len(shape) == 2 and shape[1] == 2 * shape[0]
