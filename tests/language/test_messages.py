"""What recipe mistakes say, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptfix.errors import RecipeSchemaError, UnmatchedPattern
from ckptfix.recipe import load_recipe

from .making import errors, plan


def parts(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeSchemaError) as caught:
        load_recipe(file)
    first = caught.value
    assert str(first) == str(first.parts[0])
    assert first.exit_code == 2
    return [str(part).replace(str(file), "r.yaml") for part in first.parts]


@pytest.mark.parametrize(
    ("rule", "messages"),
    [
        ("{keys: a}", ["r.yaml:4: a rule needs an 'op'"]),
        ("drop", ["r.yaml:4: an entry of rules should be a mapping, not 'drop'"]),
        ("{op: drop, kees: a}", ["r.yaml:4: drop: unknown field 'kees' (did you mean 'keys'?)"]),
        ("{op: drop}", ["r.yaml:4: drop: the field 'keys' is missing"]),
        (
            "{op: copy, sources: a, to: b}",
            [
                "r.yaml:4: copy: unknown field 'sources' (known: optional, op, from, to)",
                "r.yaml:4: copy: the field 'from' is missing",
            ],
        ),
        (
            "{op: drop, keys: a, when: mismatch}",
            ["r.yaml:4: drop: when should be 'always', 'unexpected' or 'mismatched', not 'mismatch'"],
        ),
        ("{op: drop, keys: a, optional: no}", ["r.yaml:4: drop: optional should be true or false, not 'no'"]),
        ("{op: drop, keys: []}", ["r.yaml:4: drop: keys is empty"]),
        ("{op: drop, keys: [a, 5]}", ["r.yaml:4: drop: keys: a pattern is a text, not 5"]),
        (
            "{op: drop, keys: 'a{b'}",
            ["r.yaml:4: drop: keys: 'a{b': a stray '{' (a placeholder reads {name})"],
        ),
        (
            "\n    op: rename\n    map:\n      '**.**': a\n      b: 'c.*'\n",
            [
                "r.yaml:7: rename: map: '**.**': '**' may stand once in a pattern",
                "r.yaml:8: rename: map: 'c.*': a wildcard has no text to put into a new key (name it: {x} or {x:**})",
            ],
        ),
        ("{op: rename, map: [a]}", ["r.yaml:4: rename: map should be a mapping, not ['a']"]),
        (
            "{op: fill, keys: a, value: '3'}",
            [
                "r.yaml:4: fill: value should be 'target', 'zeros', 'ones' or 'normal' or an integer or a number, "
                "not '3'"
            ],
        ),
        ("{op: fill, keys: a, value: 1, std: 2}", ["r.yaml:4: fill: std: only `value: normal` has one"]),
        (
            "{op: fill, keys: a, value: normal, std: -1, seed: x, sed: 1}",
            [
                "r.yaml:4: fill: unknown field 'sed' (did you mean 'seed'?)",
                "r.yaml:4: fill: std should be greater than 0, not -1",
                "r.yaml:4: fill: seed should be an integer, not 'x'",
            ],
        ),
        (
            "{op: cast, keys: a, dtype: I8}",
            [
                "r.yaml:4: cast: dtype: 'I8' is no floating dtype; known: F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ, "
                "F8_E5M2FNUZ, F16, BF16, F32, F64"
            ],
        ),
        (
            "{op: resize, keys: a, layout: 'n (c', axes: [n], mode: crop}",
            ["r.yaml:4: resize: layout: 'n (c': a bracket is not closed"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: [n], mode: bicubic}",
            ["r.yaml:4: resize: bicubic works along 2 axes"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: [n, n], mode: crop}",
            ["r.yaml:4: resize: axes: one stands twice in n, n"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: n, mode: crop}",
            ["r.yaml:4: resize: axes should be a list or a mapping, not 'n'"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: [n], mode: crop, antialias: true}",
            ["r.yaml:4: resize: antialias: crop has none"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: [n], mode: nearest, align_corners: true}",
            ["r.yaml:4: resize: align_corners: nearest has none"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: [n], mode: crop, fill: mean}",
            ["r.yaml:4: resize: fill: crop adds nothing"],
        ),
        (
            "{op: resize, keys: a, layout: n c, axes: [n, c], mode: pad, fill: mean}",
            ["r.yaml:4: resize: fill: the mean is taken along one axis"],
        ),
    ],
)
def test_a_wrong_rule(rule: str, messages: list[str], tmp_path: Path) -> None:
    assert parts(f"ckptfix: 1\n\nrules:\n  - {rule}\n", tmp_path) == messages


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["r.yaml:1: the document is empty"]),
        ("- a\n", ["r.yaml:1: the document must be a mapping"]),
        ("rules: []\n", ["r.yaml:1: the field 'ckptfix' is missing (begin with: ckptfix: 1)"]),
        ("ckptfix: 2\n", ["r.yaml:1: ckptfix should be 1, not 2"]),
        ("ckptfix: true\n", ["r.yaml:1: ckptfix: the version is 1, not true"]),
        ("ckptfix: 1\nrulez: []\n", ["r.yaml:2: unknown field 'rulez' (did you mean 'rules'?)"]),
        ("ckptfix: 1\nrules: {op: drop}\n", ["r.yaml:2: rules should be a list, not {'op': 'drop'}"]),
        ("ckptfix: 1\nsource: {selct: a}\n", ["r.yaml:2: unknown field 'selct' (did you mean 'select'?)"]),
        ("ckptfix: 1\nsource:\n  strip: 3\n", ["r.yaml:3: source.strip should be a list, not 3"]),
        (
            "ckptfix: 1\nvars:\n  a: 1.5\n  b: {c: null}\n",
            [
                "r.yaml:3: vars.a: 1.5 is no integer, text, list or map",
                "r.yaml:4: vars.b: None is no integer, text, list or map",
            ],
        ),
        (
            "ckptfix: 1\nrules:\n  - {op: drop}\n  - {op: dorp}\n  - op: fill\n    keys: '}'\n    value: []\n",
            [
                "r.yaml:3: drop: the field 'keys' is missing",
                "r.yaml:4: dorp: unknown op 'dorp' (did you mean 'drop'?)",
                "r.yaml:6: fill: keys: '}': a stray '}' (a placeholder reads {name})",
                "r.yaml:7: fill: value should be 'target', 'zeros', 'ones' or 'normal' or an integer or "
                "a number, not []",
            ],
        ),
    ],
)
def test_a_wrong_document(text: str, messages: list[str], tmp_path: Path) -> None:
    assert parts(text, tmp_path) == messages


HEAD = "ckptfix: 1\nrules:\n"
HAVE = {"fc.weight": [5, 3], "fc.bias": [5], "n.x": [2]}
WANT = {"head.weight": [5, 3], "head.bias": [5]}


@pytest.mark.parametrize(
    ("rules", "messages"),
    [
        (
            "  - {op: drop, keys: zzz}\n",
            ["recipe:3: drop: 'zzz' matches no key (say optional: true if that is meant)"],
        ),
        (
            "  - {op: fill, keys: haed.bias, value: 0}\n",
            ["recipe:3: fill: 'haed.bias' matches no key of the target (nearest: head.bias)"],
        ),
        (
            "  - {op: rename, map: {fc.weight: a}}\n  - {op: copy, from: fc.bias, to: [a, b]}\n",
            [
                "recipe:4: copy: rule 2 makes 'a' from 'fc.bias', which is already there, made by rule 1 "
                "(drop or rename one of them first)"
            ],
        ),
        (
            '  - {op: rename, map: {"fc.*": a}}\n',
            ["recipe:3: rename: rule 1 makes 'a' twice: from 'fc.weight' and from 'fc.bias' (drop one of them first)"],
        ),
        (
            '  - {op: rename, map: {"fc.{p}": "a.{p}", "{x}.bias": b}}\n',
            ["recipe:3: rename: 'fc.bias' is renamed to 'a.bias' and to 'b'"],
        ),
        (
            '  - {op: rename, map: {"{x}.bias": "{x+1}"}}\n',
            ["recipe:3: rename: 'fc.bias': x is 'fc', not an integer (match it with {x:int})"],
        ),
        (
            '  - {op: copy, from: "fc.{p}", to: "{stage[p]}.{i}"}\n',
            [
                "recipe:3: copy: '{stage[p]}.{i}' uses 'stage', which no pattern or variable defines (give --var "
                "stage=..., or declare it in vars; known here: i, p)"
            ],
        ),
        (
            '  - {op: copy, from: fc.bias, to: "haed.b{p}s"}\n',
            ["recipe:3: copy: 'fc.bias': 'haed.b{p}s' matches no key of the target (nearest: head.bias)"],
        ),
        (
            "  - {op: fill, keys: head.bias, value: 1e39}\n",
            ["recipe:3: fill: 'head.bias' is F32 and cannot hold 1e+39 (fill it with another number)"],
        ),
        (
            "  - {op: resize, keys: fc.weight, layout: o i, axes: [o], mode: crop}\n",
            [
                "recipe:3: resize: 'fc.weight': the target has no such key, so it gives no new extents "
                "(write axes: {o: ...}, or rename first; nearest: head.weight)"
            ],
        ),
        (
            "  - {op: resize, keys: fc.weight, layout: o i, axes: {o: n}, mode: crop}\n",
            ["recipe:3: resize: 'fc.weight': 'n' is no variable (give --var n=...; known here: none)"],
        ),
    ],
)
def test_a_rule_that_does_not_apply(rules: str, messages: list[str]) -> None:
    made = plan(HEAD + rules, HAVE, WANT)
    assert errors(made) == messages
    assert made.exit_code == 2


def test_all_unmatched_patterns_and_collisions_come_at_once() -> None:
    made = plan(
        HEAD + "  - {op: drop, keys: [x, y]}\n  - {op: copy, from: fc.bias, to: [n.x, fc.weight]}\n"
        "  - {op: rename, map: {q: r}}\n",
        HAVE,
        WANT,
    )
    said = errors(made)
    assert [message.split(" (")[0].split(", which")[0] for message in said] == [
        "recipe:3: drop: 'x' matches no key",
        "recipe:3: drop: 'y' matches no key",
        "recipe:4: copy: rule 2 makes 'n.x' from 'fc.bias'",
        "recipe:4: copy: rule 2 makes 'fc.weight' from 'fc.bias'",
        "recipe:5: rename: 'q' matches no key",
    ]
    with pytest.raises(Exception, match="5 faults in the recipe") as caught:
        made.raise_for_errors()
    assert [str(part) for part in caught.value.parts] == said
    with pytest.raises(UnmatchedPattern, match="'x' matches no key"):
        plan(HEAD + "  - {op: drop, keys: x}\n", HAVE, WANT).raise_for_errors()


def test_many_faults_of_one_rule_are_counted() -> None:
    have = {f"x{number}.w": [1] for number in range(9)}
    said = errors(plan(HEAD + '  - {op: rename, map: {"{x}.w": "{x*2}.w"}}\n', have, {}))
    assert len(said) == 6
    assert said[-1] == "recipe:3: rename: and 4 more keys"
