"""Documents: YAML 1.2 and JSON, with the line of every node."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.document import parse_document, read_document
from ckptfix.errors import ReadFailed, RecipeSyntaxError, SourceNotFound
from ckptfix.recipe import load_recipe


def value(text: str) -> object:
    return parse_document(text, "r.yaml").value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("012", 12),
        ("-7", -7),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        ("1.5E-1", 0.15),
        (".5", 0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("-.inf", -float("inf")),
        ("2020-01-01", "2020-01-01"),
        ("=", "="),
        ("'5'", "5"),
        ('"5"', "5"),
        ("!!str 5", "5"),
        ("!!bool yes", "yes"),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        ("|\n    x\n    y", "x\ny\n"),
        ("99999999999999999999", 99999999999999999999),
    ],
)
def test_scalars_are_yaml_1_2(text: str, meant: object) -> None:
    read = value(f"a: {text}\n")
    assert read == {"a": meant}
    assert type(read["a"]) is type(meant)


def test_the_version_in_the_document_changes_nothing() -> None:
    assert value("%YAML 1.1\n---\na: yes\nb: 012\nc: no\n") == {"a": "yes", "b": 12, "c": "no"}


def test_keys_are_texts() -> None:
    assert value("1: a\nnull: b\ntrue: c\n") == {"1": "a", "null": "b", "true": "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b: 1\nx: {a: 1, a: 2}\n", "r.yaml:2: the key 'a' stands twice, first on line 2 (keep one)"),
        (
            "a: &x 1\nb: *x\n",
            "r.yaml:2: aliases are not allowed (write the value out; quote a text that starts with * or &)",
        ),
        (
            "a: !!python/object:os.system {}\n",
            "r.yaml:1: the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed",
        ),
        (
            "a: !!python/object/apply:os.system [x]\n",
            "r.yaml:1: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
        ),
        ("a:\n  - !!set {b}\n", "r.yaml:2: the tag 'tag:yaml.org,2002:set' is not allowed"),
        ("a: !!binary aGk=\n", "r.yaml:1: the tag 'tag:yaml.org,2002:binary' is not allowed"),
        ("a: !mine 1\n", "r.yaml:1: the tag '!mine' is not allowed (quote a text that starts with !)"),
        ("a: 1\n!mine b: 1\n", "r.yaml:2: the tag '!mine' is not allowed (quote a text that starts with !)"),
        ("a: !<x:int> 1\n", "r.yaml:1: the tag 'x:int' is not allowed"),
        ("a: {b, !c: 1\n", "r.yaml:1: the tag '!c:' is not allowed (quote a text that starts with !)"),
        ("? [a]\n: b\n", "r.yaml:1: a key must be a text (quote keys that hold { } or [ ])"),
        ("a: 1\n---\nb: 1\n", "r.yaml:2: another document begins (keep one of them)"),
        ("a: 1\nb: x\x00\n", "r.yaml:2: the character U+0000 is not allowed"),
        ('a: "\\ud83d"\n', "r.yaml:1: half a surrogate pair is no text"),
        ("a:\n  " + "[" * 60 + "]" * 60, "r.yaml:2: nests more than 50 deep"),
        ("a: " + "9" * 5000, "r.yaml:1: a number of 5000 digits"),
    ],
)
def test_what_is_refused_names_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeSyntaxError) as caught:
        value(text)
    assert str(caught.value) == message


def test_an_alias_bomb_and_a_deep_nest_end_at_once() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    start = time.process_time()
    with pytest.raises(RecipeSyntaxError, match="aliases"):
        value(bomb)
    with pytest.raises(RecipeSyntaxError, match="50 deep"):
        value("[" * 100_000)
    with pytest.raises(RecipeSyntaxError, match="50 deep"):
        parse_document("[" * 100_000, "r.json")
    assert time.process_time() - start < 2


def test_every_node_knows_its_line() -> None:
    document = parse_document(
        "ckptfix: 1\n\nrules:\n  # first\n  - op: drop\n    keys: a\n"
        "  -\n    op: rename\n    map:\n      a: b\n      c: d\n"
        "  - {op: copy,\n     from: x,\n     to: y}\n",
        "r.yaml",
    )
    lines = {
        (): 1,
        ("rules",): 3,
        ("rules", 0): 5,
        ("rules", 0, "keys"): 6,
        ("rules", 1): 8,
        ("rules", 1, "map", "c"): 11,
        ("rules", 2): 12,
        ("rules", 2, "to"): 14,
    }
    assert {place: document.line_of(place) for place in lines} == lines
    assert document.line_of(("rules", 2, "to", "deeper")) == 14
    origins = load_recipe("ckptfix: 1\nrules:\n- {op: drop, keys: a}\n\n- op: drop\n  keys: b\n").origins
    assert [str(origin) for origin in origins] == ["recipe:3: drop", "recipe:5: drop"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n", "r.json:1: expecting value"),
        ("", "r.json:1: expecting value"),
        ('{"a": 1,}', "r.json:1: illegal trailing comma before end of object"),
        ('{"a": 1,\n "b" 2}', "r.json:2: expecting ':' delimiter"),
        ('{"a": NaN}', "r.json: NaN is no JSON number"),
        ('{"a": -Infinity}', "r.json: -Infinity is no JSON number"),
        ('{"a": 1,\n "a": 2}', "r.json:2: the key 'a' stands twice, first on line 1 (keep one)"),
        ('{"a":\n"\\ud83d"}', "r.json:2: half a surrogate pair is no text"),
    ],
)
def test_a_json_file_is_held_to_json(text: str, message: str) -> None:
    with pytest.raises(RecipeSyntaxError) as caught:
        parse_document(text, "r.json")
    said = str(caught.value).replace(
        "expecting property name enclosed in double quotes", "illegal trailing comma before end of object"
    )  # Python 3.12 and before
    assert said == message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{}*:# .", max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.sampled_from([None, 2, "\t"]))
def test_json_is_read_as_json_reads_it(document: object, indent: int | str | None) -> None:
    for ascii_only in (True, False):
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
        assert parse_document(text, "r.json").value == document


def test_json_and_yaml_give_equal_recipes(tmp_path: Path) -> None:
    rules = [
        {"op": "rename", "map": {"a.{i}": "b.{i+1}"}},
        {"op": "fill", "keys": ["x.*"], "value": 1e-3},
        {"op": "resize", "keys": "p", "layout": "n c", "axes": {"n": 4}, "mode": "pad", "fill": 2},
    ]
    (tmp_path / "r.json").write_text(
        "\t" + json.dumps({"ckptfix": 1, "vars": {"n": [1, {"a": "b"}]}, "rules": rules}, indent="\t")
    )
    (tmp_path / "r.yaml").write_text(
        "ckptfix: 1\nvars:\n  n: [1, {a: b}]\nrules:\n  - op: rename\n    map:\n      a.{i}: b.{i+1}\n"
        "  - {op: fill, keys: ['x.*'], value: 1e-3}\n"
        "  - {op: resize, keys: p, layout: n c, axes: {n: 4}, mode: pad, fill: 2}\n"
    )
    from_json, from_yaml = load_recipe(tmp_path / "r.json"), load_recipe(str(tmp_path / "r.yaml"))
    assert from_json.rules == from_yaml.rules
    assert from_json.variables == from_yaml.variables
    assert from_json.digest == from_yaml.digest
    assert from_json.digest != load_recipe(None).digest


def test_files_in_other_dress_are_read_the_same(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    text = "ckptfix: 1\nrules:\n  - {op: drop, keys: a}\n  - {op: drop, keys: b}\n"
    for data in (text.encode(), text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.encode()):
        file.write_bytes(data)
        recipe = load_recipe(file)
        assert [rule.name for rule in recipe.rules] == ["drop", "drop"]
        assert [origin.line for origin in recipe.origins] == [3, 4]


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    with pytest.raises(SourceNotFound) as missing:
        read_document(file)
    assert str(missing.value) == f"{file}: no such file"
    with pytest.raises(ReadFailed) as folder:
        read_document(tmp_path)
    assert str(folder.value) == f"{tmp_path}: is a directory"
    file.write_bytes(b"ab\xff")
    with pytest.raises(RecipeSyntaxError) as binary:
        read_document(file)
    assert str(binary.value) == f"{file}: byte 2 is not UTF-8"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(RecipeSyntaxError) as huge:
        read_document(file)
    assert str(huge.value) == f"{file}: larger than 2 MiB (this is no recipe)"
