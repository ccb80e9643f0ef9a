"""A recipe for many thousand tensors is inferred in seconds."""

from __future__ import annotations

from time import process_time

import pytest

from ckptfix.inference.suggestion import suggest_recipe
from tests.clock import slowness
from tests.inference.sides import fused, split
from tests.language.making import manifest


@pytest.mark.parametrize(("tensors", "seconds"), [(1_000, 2), (20_000, 20)])
def test_a_deep_transformer(tensors: int, seconds: float) -> None:
    layers = tensors // 12
    have, want = manifest(fused(layers)), manifest(split(layers))
    assert len(have) > 0.99 * tensors
    start = process_time()
    suggestion = suggest_recipe(have, want, "deep")
    assert process_time() - start < seconds * slowness()
    assert suggestion.is_complete
    assert tuple(suggestion.resolved) == tuple(want)
    assert suggestion.rules == 2
