"""Shapes alone: which layouts lead from one to another, who is paired with whom, and what a resize may do."""

from __future__ import annotations

from itertools import permutations
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.inference.assignment import assign
from ckptfix.inference.infer import infer
from ckptfix.inference.link import Link, Term
from ckptfix.inference.resizable import find_resize
from ckptfix.inference.shapes import relate
from ckptfix.inference.slots import Slot
from ckptfix.planning import Plan
from tests.language.making import manifest, plan
from tests.language.values import compute

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def arranged(layout: str, have: tuple[int, ...], want: tuple[int, ...]) -> Plan:
    return plan([{"op": "rearrange", "from": "a", "to": "b", "layout": layout}], {"a": have}, {"b": want})


@given(have=SHAPES, data=st.data())
def test_every_layout_gives_the_shape(have: tuple[int, ...], data: st.DataObject) -> None:
    turned = tuple(data.draw(st.permutations(have)))
    folded = (turned[0] * turned[1], *turned[2:]) if len(turned) > 1 else (*turned, 1)
    tensor = torch.randn(have)
    for want in (turned, folded, (*have, 1)):
        for layout in relate(have, want):
            if layout is None:
                assert have == want
                continue
            made = arranged(layout, have, want)
            assert not made.errors
            value = compute(made.rows["b"].expr, {"a": tensor})
            assert value.shape == want
            assert torch.equal(value.flatten().sort()[0], tensor.flatten().sort()[0])


@given(have=SHAPES, want=SHAPES)
def test_other_sizes_are_never_related(have: tuple[int, ...], want: tuple[int, ...]) -> None:
    if prod(have) != prod(want):
        assert relate(have, want) == []
    assert (None in relate(have, want)) == (have == want)


@pytest.mark.parametrize(
    ("have", "want", "layouts"),
    [
        ((4, 3), (3, 4), ["o i -> i o"]),
        ((4, 4), (4, 4), [None, "o i -> i o"]),
        ((1, 1), (1, 1), [None]),
        ((8, 4, 1, 1), (8, 4), ["a b 1 1 -> a b"]),
        ((8, 3, 2, 5), (8, 30), ["a b c d -> a (b c d)"]),
        ((3, 2, 5, 7), (7, 5, 3, 2), ["h w i o -> o i h w"]),
        ((3, 2, 5, 7), (5, 7, 3, 2), ["h w c m -> c m h w"]),
        ((2, 5, 3), (2, 3, 5), ["a b c -> a c b"]),
        ((6, 4), (4, 3, 2), ["(b c) a -> a b c"]),
        ((6, 4), (3, 4, 2), []),
        ((3, 4, 2), (8, 3), ["a b c -> (b c) a"]),
        ((4, 2, 3), (3, 8), ["a b c -> c (a b)"]),
        ((4, 2, 8), (8, 8), ["a b c -> (a b) c", "a b c -> c (a b)"]),
        ((3, 80, 64), (64, 80, 3), ["w i o -> o i w"]),
        ((2, 3, 4, 5, 6), (6, 5, 2, 3, 4), ["d h w i o -> o i d h w"]),
        ((3, 3, 3, 3), (3, 3, 3, 3), [None, "h w i o -> o i h w", "h w c m -> c m h w"]),
        ((), (1,), []),
    ],
)
def test_relate(have: tuple[int, ...], want: tuple[int, ...], layouts: list[str | None]) -> None:
    assert relate(have, want) == layouts


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    numbers=st.lists(st.integers(-3, 12), min_size=36, max_size=36),
)
def test_assign_is_the_best_of_all(size: tuple[int, int], numbers: list[int]) -> None:
    rows, columns = size
    scores = {(i, j): float(numbers[6 * i + j]) for i in range(rows) for j in range(columns)}
    pairs = assign(scores)
    few, many = sorted(size)
    assert len(pairs) == len(set(pairs.values())) == few

    def worth(chosen: tuple[int, ...]) -> float:
        return sum(scores[(i, n) if few == columns else (n, i)] for n, i in enumerate(chosen))

    assert sum(scores[i, j] for j, i in pairs.items()) == max(map(worth, permutations(range(many), few)))


def test_a_pair_without_a_score_is_never_made() -> None:
    assert assign({(0, 0): 1.0, (1, 0): 2.0}) == {0: 1}
    assert assign({(0, 0): 1.0, (1, 1): -1.0}) == {0: 0, 1: 1}
    assert assign({}) == {}


def slot(key: str, *shape: int) -> Slot:
    return Slot(key, (Term.of(key),), (shape,), 0)


GRID = {"axes": ["h", "w"], "mode": "bicubic", "antialias": True}


@pytest.mark.parametrize(
    ("key", "have", "want", "fields"),
    [
        ("pos_embed", (1, 16, 8), (1, 36, 8), GRID | {"layout": "1 (h w) c"}),
        ("pos_embed", (1, 17, 8), (1, 37, 8), GRID | {"layout": "1 (p + (h w)) c", "sizes": {"p": 1}}),
        ("pos_embed", (18, 8), (38, 8), GRID | {"layout": "(p + (h w)) c", "sizes": {"p": 2}}),
        ("wpe", (32, 8), (48, 8), None),
        ("wpe", (514, 8), (512, 8), None),
        ("wpe", (48, 8), (32, 8), {"layout": "n c", "axes": ["n"], "mode": "crop"}),
        (
            "relative_position_bias_table",
            (7 * 7 + 3, 4),
            (11 * 11 + 3, 4),
            {"layout": "((h w) + o) n", "axes": ["h", "w"], "mode": "geometric", "sizes": {"o": 3}},
        ),
        (
            "relative_position_bias_table",
            (49, 4),
            (121, 4),
            {"layout": "(h w) n", "axes": ["h", "w"], "mode": "geometric"},
        ),
        ("wte", (50, 8), (60, 8), {"layout": "v c", "axes": ["v"], "mode": "pad", "fill": "mean"}),
        ("lm_head.bias", (50,), (60,), {"layout": "v", "axes": ["v"], "mode": "pad", "fill": "mean"}),
        ("stem.conv", (8, 3, 5, 5), (8, 1, 5, 5), {"layout": "o i h w", "axes": ["i"], "mode": "sum"}),
        (
            "stem.conv",
            (8, 3, 5, 5),
            (8, 4, 5, 5),
            {"layout": "o i h w", "axes": ["i"], "mode": "tile", "rescale": True},
        ),
        (
            "patch_embed.proj",
            (8, 3, 4, 4),
            (8, 3, 8, 8),
            {"layout": "o i h w", "axes": ["h", "w"], "mode": "pinv", "antialias": True},
        ),
        ("mlp.fc1", (50, 8), (50, 9), None),
        ("mlp.fc1", (51, 8), (60, 8), None),
        ("conv", (8, 32, 3, 3), (8, 64, 3, 3), None),
        ("pos_embed", (1, 16, 8), (1, 16, 8), None),
    ],
)
def test_find_resize(key: str, have: tuple[int, ...], want: tuple[int, ...], fields: dict[str, object] | None) -> None:
    assert find_resize(slot(key, *have), slot(key, *want), have, want, (50, 60)) == fields


def test_a_vocabulary_that_shrinks() -> None:
    fields = find_resize(slot("wte", 60, 8), slot("wte", 50, 8), (60, 8), (50, 8), (60, 50))
    assert fields == {"layout": "v c", "axes": ["v"], "mode": "crop"}


def test_rows_are_cut_only_where_tokens_say_so() -> None:
    have = manifest({"wte.weight": (50, 8), "head.weight": (50, 8), "mlp.fc.weight": (50, 8)})
    want = manifest({"wte.weight": (60, 8), "head.weight": (60, 8), "mlp.fc.weight": (70, 8)})
    found = infer(have, want)
    assert [link.target_keys for link in found.links if link.resize] == [("wte.weight",), ("head.weight",)]
    assert list(found.left_targets) == ["mlp.fc.weight"]


def test_what_is_stacked_on_both_sides_goes_one_by_one() -> None:
    def stacked(*names: str) -> tuple[Term, ...]:
        return tuple(Term((f"{name}.0", f"{name}.1"), "e") for name in names)

    link = Link(stacked("qkv"), stacked("q", "k", "v"), "e (q+k+v) y -> e q y, e k y, e v y")
    assert [(one.source_keys, one.target_keys, one.layout) for one in link.unstacked()] == [
        ((f"qkv.{n}",), (f"q.{n}", f"k.{n}", f"v.{n}"), "(q+k+v) y -> q y, k y, v y") for n in range(2)
    ]
    plain = Link(stacked("a"), stacked("b"), "e ... -> e ...")
    assert plain.unstacked() == [Link.rename(f"a.{n}", f"b.{n}") for n in range(2)]
    whole = Link(stacked("a"), (Term.of("b"),), "e ... -> e ...")
    assert whole.unstacked() == [whole]
