"""Recipes read as a person would write them: special blocks first, comments where they say something."""

from __future__ import annotations

import pytest

from ckptfix.inference.generalise.line import Line
from ckptfix.inference.generalise.names import table_names
from ckptfix.inference.generalise.remarks import Remarks
from ckptfix.inference.generalise.selection import patterns_of
from ckptfix.inference.generalise.special import special_moves
from ckptfix.inference.generalise.terms import with_rest
from ckptfix.inference.generalise.write import write_recipe
from ckptfix.inference.link import Link, Term
from tests.inference.cases import Case, assert_does_as_told


@pytest.mark.parametrize(
    ("layout", "written"),
    [
        ("e g c, e u c -> e (g+u) c", "e g ..., e u ... -> e (g+u) ..."),
        ("y q h, y k h -> ((q+k) h) y", "y q h, y k h -> ((q+k) h) y"),
        ("o i -> i o", "o i -> i o"),
        ("a -> 1 1 a", "a -> 1 1 a"),
    ],
)
def test_an_axis_at_the_end_of_several_tensors_is_the_rest(layout: str, written: str) -> None:
    sources = tuple(Term.of(key) for key in "ab"[: layout.partition("->")[0].count(",") + 1])
    assert with_rest(Link(sources, (Term.of("c"),), layout)).layout == written


def test_an_axis_with_a_size_keeps_its_name() -> None:
    link = Link((Term.of("a"), Term.of("b")), (Term.of("c"),), "q c, k c -> (q+k) c", {"c": 2})
    assert with_rest(link) == link


def special_first_block() -> Case:
    """Give six blocks, the first of which has no `expand`, so that its norms are numbered otherwise."""
    case = Case()
    case.rename("stem.weight", "conv_stem.weight")
    stages = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    for i, (stage, block) in enumerate(stages):
        to = f"blocks.{stage}.{block}"
        for norm in (1, 2) if i == 0 else (0, 1, 2):
            case.module(f"layers.{i}.bn{norm}", f"{to}.bn{norm + (i > 0)}")
        case.rename(f"layers.{i}.project.weight", f"{to}.{'conv_pwl' if i else 'conv_pw'}.weight")
        if i:
            case.rename(f"layers.{i}.expand.weight", f"{to}.conv_pw.weight")
    return case


def test_a_special_block_goes_first_and_whole() -> None:
    case = special_first_block()
    written = case.written()
    assert [list(rule["map"].items()) for rule in written.values["rules"]] == [
        [
            ("layers.0.bn{i}.{p}", "blocks.0.0.bn{i}.{p}"),
            ("layers.0.project.weight", "blocks.0.0.conv_pw.weight"),
        ],
        [
            ("stem.weight", "conv_stem.weight"),
            ("layers.{i}.bn{j}.{p}", "blocks.{stage[i]}.{block[i]}.bn{j+1}.{p}"),
            ("layers.{i}.project.weight", "blocks.{stage[i]}.{block[i]}.conv_pwl.weight"),
            ("layers.{i}.expand.weight", "blocks.{stage[i]}.{block[i]}.conv_pw.weight"),
        ],
    ]
    assert_does_as_told(case, written)


def test_blocks_that_outvote_each_other_are_not_special() -> None:
    moves = {f"a.{i}.{old}": f"b.{i}.{new}" for i in range(6) for old, new in (("x", "y"), ("u", f"v{i % 2}"))}
    assert special_moves(moves) == []
    assert special_moves(moves | {"a.3.x": "b.3.z"}) == [frozenset({"a.3.x", "a.3.u"})]


def test_a_line_says_what_it_alone_rests_on() -> None:
    case = Case()
    names, order = frozenset({"names", "shapes"}), frozenset({"order", "shapes"})
    for name in ("query", "key", "value"):
        case.rename(f"old.{name}", f"new.{name}_proj", why="", evidence=names, confidence=0.97)
    case.rename("old.0", "new.fc1", why="", evidence=order, confidence=0.91)
    case.rename("old.1", "new.norm", why="", evidence=names | order, confidence=0.98)
    assert case.written().text.endswith("""\
# each line that says nothing else: by names, shapes; confidence 0.91 or more
rules:
  - op: rename
    map:
      "old.{p:key|query|value}": "new.{p}_proj"
      "old.0": "new.fc1"  # by order, shapes
      "old.1": "new.norm"
""")


@pytest.mark.parametrize(
    ("new", "named"),
    [
        ("blocks.{_v0[_n0]}.{_v1[_n0]}", {"_v0": "stage", "_v1": "block"}),
        ("layers.{_v0[_n0]}.experts.{_v1[_n0]}", {"_v0": "layer", "_v1": "expert"}),
    ],
)
def test_numbers_side_by_side_are_stage_and_block(new: str, named: dict[str, str]) -> None:
    line = Line(("h.{_n0:int}",), (new,), 0)
    assert table_names([line], {"_v0": {"0": 1}, "_v1": {"0": 2}}) == named


def test_single_lines_are_not_set_apart() -> None:
    keys = ["stem", "pos", "h.{i}.q", "h.{i}.k", "h.{i}.v", "n.{i}.x", "m.{i}.y", "head"]
    rule = {"op": "rename", "map": {key: f"new.{key}" for key in keys}}
    text = write_recipe({"ckptfix": 1, "rules": [rule]}, Remarks("", [""], [[]]))
    groups = text.partition("map:\n")[2].split("\n\n")
    assert [len(group.splitlines()) for group in groups] == [2, 6]


def test_what_all_keys_end_in_is_named() -> None:
    keys = [f"blocks.{i}.attn.{leaf}" for i in range(3) for leaf in ("bias_table", "qkv.weight")]
    assert patterns_of([key for key in keys if key.endswith("table")], keys, "general") == ["**.bias_table"]
