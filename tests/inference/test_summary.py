"""What is open, in few lines: alike keys as one, and comments that stay comments whatever a key holds."""

from __future__ import annotations

import pytest

from ckptfix.inference.link import Link, Open
from ckptfix.inference.settle import Ambiguity, Answer
from ckptfix.inference.suggestion import suggest_recipe, write_suggestion
from ckptfix.inference.summary import Group, Row, group_open, starred
from ckptfix.planning import make_plan
from ckptfix.recipe import load_recipe
from tests.language.making import manifest

ORDERS = "rows of rotary heads come in two orders"


def ambiguous(layers: int) -> list[Ambiguity]:
    return [
        Ambiguity(f"layers.{i}.attn.{part}.weight", (f"h.{i}.{part}_proj.weight",), ORDERS)
        for i in range(layers)
        for part in "qk"
    ]


def test_one_row_for_all_blocks() -> None:
    assert group_open(ambiguous(12), {}) == (
        Group(
            f"ambiguous, {ORDERS}",
            (
                Row("layers.*.attn.q.weight", 12, ("h.*.q_proj.weight",)),
                Row("layers.*.attn.k.weight", 12, ("h.*.k_proj.weight",)),
            ),
        ),
    )


def test_two_keys_are_named() -> None:
    [group] = group_open(ambiguous(2), {})
    assert sorted(row.text for row in group.rows) == sorted(doubt.target for doubt in ambiguous(2))
    assert group.count == 4 and all(row.count == 1 for row in group.rows)


def test_reasons_that_name_the_block_are_one() -> None:
    left = {f"h.{i}.attn.weight": Open(f"of its block 'layers.{i}.qkv' is left over, 3 of 4 fit") for i in range(3, 6)}
    [group] = group_open([], left)
    assert group.reason == "unresolved, of its block 'layers.*.qkv' is left over, 3 of 4 fit"
    assert group.rows == (Row("h.*.attn.weight", 3),)


def test_reasons_with_other_numbers_stay_apart() -> None:
    shapes = {f"{i}.weight": Open(f"'a.{i}' has the shape [{i + 2}, 3]") for i in range(2)}
    groups = group_open([], shapes)
    assert [group.reason for group in groups] == [
        "unresolved, 'a.0' has the shape [2, 3]",
        "unresolved, 'a.1' has the shape [3, 3]",
    ]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Row("w", 1), "w"),
        (Row("h.*.w", 3, ("a.*",)), "h.*.w (3 keys) from a.*"),
        (Row("w", 1, ("a", "b", "c", "d")), "w from a or b or c or ..."),
    ],
)
def test_a_row_as_text(row: Row, text: str) -> None:
    assert str(row) == text


def test_only_numbers_that_differ_become_stars() -> None:
    assert starred(["h.0.norm1.w", "h.12.norm1.w"]) == "h.*.norm1.w"
    assert starred(["h.0.norm1.w"]) == "h.0.norm1.w"


def test_a_block_to_copy_is_a_real_one() -> None:
    left = {f"layer{i}.2.weight": Open(f"further: fill it, or copy it from 'layer{i}.1'") for i in range(1, 4)}
    [group] = group_open([], left)
    assert group.reason == "unresolved, further: fill it, or copy it from 'layer1.1' and so on"
    assert group.rows == (Row("layer*.2.weight", 3),)


def test_what_is_open_and_loads_by_its_name_says_so() -> None:
    """Both squares may be either; the recipe as it is loads one of them."""
    have, want = {"a": (4, 4), "b": (4, 4), "n": (4,)}, {"a": (4, 4), "c": (4, 4), "n": (4,)}
    doubts = [Ambiguity("a", ("a", "b"), "unsure"), Ambiguity("c", ("a", "b"), "unsure")]
    answer = Answer([Link.rename("n", "n")], ambiguous=doubts)
    found = write_suggestion(answer, manifest(have), manifest(want), "squares")
    assert found.text.splitlines()[-4:] == [
        "# ambiguous, unsure; loads under its own name unless you change it (1 key):",
        "#   a from a or b",
        "# ambiguous, unsure (1 key):",
        "#   c from a or b",
    ]
    assert make_plan(load_recipe(found.recipe), manifest(have), manifest(want)).report().loaded == ("a", "n")
    assert [group.reason for group in found.open] == ["ambiguous, unsure"]


def test_no_key_ends_its_comment() -> None:
    have = manifest({"a\nrules: [1]": (4, 4), "b\x01\u2028": (4, 4)})
    found = suggest_recipe(have, manifest({"p": (4, 4), "q": (4, 4)}), "odd")
    assert len(found.ambiguous) == 2
    assert "#   p from a\\nrules: [1] or b\\x01\\u2028\n" in found.text
    assert load_recipe(found.text).rules == load_recipe(found.recipe).rules
