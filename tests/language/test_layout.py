from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.errors import LayoutError
from ckptfix.layout import (
    Axis,
    Name,
    Number,
    Product,
    Rest,
    Sum,
    expand,
    extent,
    names_of,
    parse_tensor,
    solve,
    text_of,
)


def solved(layout: str, shape: Sequence[int], known: dict[str, int] | None = None, equal: Sequence[str] = ()) -> object:
    return solve(expand(parse_tensor(layout), len(shape)), shape, known or {}, equal)


@pytest.mark.parametrize(
    ("text", "axes", "written"),
    [
        ("", (), ""),
        ("a b_1", (Name("a"), Name("b_1")), "a b_1"),
        ("1 a", (Number(1), Name("a")), "1 a"),
        ("(h w) c", (Product((Name("h"), Name("w"))), Name("c")), "(h w) c"),
        ("(q+k+v) ...", (Sum((Name("q"), Name("k"), Name("v"))), Rest()), "(q + k + v) ..."),
        (
            "1 (p + (h w)) c",
            (Number(1), Sum((Name("p"), Product((Name("h"), Name("w"))))), Name("c")),
            "1 (p + (h w)) c",
        ),
        ("(p + h w)", (Sum((Name("p"), Product((Name("h"), Name("w"))))),), "(p + (h w))"),
        ("(g (r+k) d)", (Product((Name("g"), Sum((Name("r"), Name("k"))), Name("d"))),), "(g (r + k) d)"),
        ("(a)", (Name("a"),), "a"),
        ("((a b))", (Product((Name("a"), Name("b"))),), "(a b)"),
    ],
)
def test_a_layout_is_read_and_written(text: str, axes: tuple[Axis, ...], written: str) -> None:
    assert parse_tensor(text) == axes
    assert text_of(axes) == written
    assert parse_tensor(written) == axes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a (b", "'a (b': a bracket is not closed"),
        ("a b)", "'a b)': a stray ')'"),
        ("a + b", "'a + b': a stray '+'"),
        ("()", "'()': empty brackets"),
        ("(a + )", "'(a + )': empty brackets"),
        ("a a", "'a a': the axis 'a' stands twice"),
        ("a (b + (a c))", "'a (b + (a c))': the axis 'a' stands twice"),
        ("... a ...", "'... a ...': '...' may stand once"),
        ("(... a)", "'(... a)': '...' cannot stand inside brackets"),
        ("a, b", "'a, b': ',' is no part of a layout"),
        ("a -> b", "'a -> b': '-' is no part of a layout"),
        ("(" * 30, f"'{'(' * 30}': brackets nest more than 20 deep"),
        ("a" * 1001, "a layout of 1001 characters (at most 1000)"),
    ],
)
def test_a_malformed_layout_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        parse_tensor(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layout", "shape", "known", "equal", "sizes"),
    [
        ("a b", [2, 3], {}, [], {"a": 2, "b": 3}),
        ("(h w) c", [6, 4], {"h": 2}, [], {"h": 2, "w": 3, "c": 4}),
        ("(2 w)", [6], {}, [], {"w": 3}),
        ("(p + q) c", [7, 2], {"p": 3}, [], {"p": 3, "q": 4, "c": 2}),
        ("(1 + q)", [7], {}, [], {"q": 6}),
        ("(p + q)", [7], {"p": 7}, [], {"p": 7, "q": 0}),
        ("1 (p + (h w)) c", [1, 197, 8], {"p": 1}, ["h", "w"], {"p": 1, "h": 14, "w": 14, "c": 8}),
        ("(h w) c", [6, 4], {"h": 2}, ["h", "w"], {"h": 2, "w": 3, "c": 4}),
        ("(h w d)", [27 * 4], {"d": 12}, ["h", "w"], {"h": 3, "w": 3, "d": 12}),
        ("(h w)", [0], {}, ["h", "w"], {"h": 0, "w": 0}),
        ("a ...", [2, 3, 4], {}, [], {"a": 2, "...0": 3, "...1": 4}),
        ("a ...", [2], {}, [], {"a": 2}),
        ("((p + q) d)", [20], {"p": 3, "d": 4}, [], {"p": 3, "q": 2, "d": 4}),
    ],
)
def test_sizes_follow_from_the_shape(
    layout: str, shape: list[int], known: dict[str, int], equal: list[str], sizes: dict[str, int]
) -> None:
    assert solved(layout, shape, known, equal) == sizes


@pytest.mark.parametrize(
    ("layout", "shape", "known", "equal", "message"),
    [
        ("a b", [2, 3], {"a": 4}, [], "'a' is 4, the tensor has 2 there"),
        ("1 b", [2, 3], {}, [], "1 is 1, the tensor has 2 there"),
        ("(h w)", [6], {"h": 2, "w": 4}, [], "(h w) is 8, the tensor has 6 there"),
        ("(p + q)", [6], {"p": 2, "q": 5}, [], "(p + q) is 7, the tensor has 6 there"),
        ("(p + q)", [6], {"p": 8}, [], "without q, (p + q) is 8; the tensor has 6 there"),
        ("(h w)", [7], {"h": 2}, [], "(h w): 7 is not divisible by 2"),
        ("(h w)", [7], {"h": 0}, [], "(h w): 7 is not divisible by 0"),
        ("(h w)", [6], {}, [], "the size of 'h' does not follow from (h w) = 6 (give it: sizes: {h: ...})"),
        ("(p + q)", [6], {}, [], "the size of 'p' does not follow from (p + q) = 6 (give it: sizes: {p: ...})"),
        ("(h w)", [6], {}, ["h"], "the size of 'h' does not follow from (h w) = 6 (give it: sizes: {h: ...})"),
        (
            "(h w)",
            [6],
            {},
            ["h", "w"],
            "(h w): 6 is not a square, so h and w are unknown (give one: sizes: {h: ...})",
        ),
        ("a b", [2], {}, [], "'a b' has 2 axes, the tensor has 1"),
        ("a b ...", [2], {}, [], "'a b ...' has 2 axes, the tensor has 1"),
    ],
)
def test_numbers_that_contradict_or_do_not_suffice_are_named(
    layout: str, shape: list[int], known: dict[str, int], equal: list[str], message: str
) -> None:
    with pytest.raises(LayoutError) as caught:
        solved(layout, shape, known, equal)
    assert str(caught.value) == message


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Axis, ...]:
    """Draw axes with distinct names, up to three levels of brackets."""
    names = iter(f"x{number}" for number in range(100))

    def axis(depth: int) -> Axis:
        kind = draw(st.sampled_from(["name", "number", "product", "sum"] if depth else ["name", "number"]))
        if kind == "name":
            return Name(next(names))
        if kind == "number":
            return Number(draw(st.integers(1, 4)))
        parts = tuple(axis(depth - 1) for _ in range(draw(st.integers(2, 3))))
        return Product(parts) if kind == "product" else Sum(parts)

    return tuple(axis(2) for _ in range(draw(st.integers(0, 4))))


@given(layouts(), st.data())
def test_solving_gives_back_what_was_forgotten_or_says_so(axes: tuple[Axis, ...], data: st.DataObject) -> None:
    assert parse_tensor(text_of(axes)) == axes
    names = [name for axis in axes for name in names_of(axis)]
    sizes = {name: data.draw(st.integers(1, 6)) for name in names}
    shape = [extent(axis, sizes) or 0 for axis in axes]
    assert solve(axes, shape, sizes) == sizes
    known = {name: sizes[name] for name in names if data.draw(st.booleans())}
    try:
        found = solve(axes, shape, known)
    except LayoutError as error:
        assert "does not follow" in error.message
        assert len(known) < len(names)
    else:
        assert found == sizes
    forgotten = data.draw(st.sampled_from(names)) if names else None
    assert solve(axes, shape, {name: size for name, size in sizes.items() if name != forgotten}) == sizes


@given(layouts(), st.data())
def test_a_wrong_extent_never_passes(axes: tuple[Axis, ...], data: st.DataObject) -> None:
    names = [name for axis in axes for name in names_of(axis)]
    sizes = {name: data.draw(st.integers(1, 6)) for name in names}
    shape = [extent(axis, sizes) or 0 for axis in axes]
    for place in range(len(shape)):
        with pytest.raises(LayoutError):
            solve(axes, [total + (number == place) for number, total in enumerate(shape)], sizes)
