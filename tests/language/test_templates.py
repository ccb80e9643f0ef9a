from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.errors import PatternError
from ckptfix.keys import KeyTemplate

VARIABLES = {
    "stage": ["a", "b", "c"],
    "names": {"0": "zero", "norm": {"0": "deep"}},
    "rows": [[1, 2], [3, 4]],
    "n": 12,
    "word": "layers",
}


@pytest.mark.parametrize(
    ("text", "bound", "key"),
    [
        ("plain.key", {}, "plain.key"),
        ("{p}.{p}", {"p": "w"}, "w.w"),
        ("a.{k}.b", {"k": "x.y"}, "a.x.y.b"),
        ("{i+1}", {"i": "9"}, "10"),
        ("{ i - 1 }", {"i": "0"}, "-1"),
        ("{i*2}", {"i": "3"}, "6"),
        ("{i//4}.{i%4}", {"i": "11"}, "2.3"),
        ("{(i + 1) * n}", {"i": "1"}, "24"),
        ("{-i + 5}", {"i": "2"}, "3"),
        ("{i+1}", {"i": "007"}, "8"),
        ("{n}.{word}", {}, "12.layers"),
        ("{n}", {"n": "bound"}, "bound"),
        ("{stage[i]}", {"i": "1"}, "b"),
        ("{stage[i-1]}", {"i": "1"}, "a"),
        ("{names[i]}", {"i": "0"}, "zero"),
        ("{names[l][i]}", {"l": "norm", "i": "0"}, "deep"),
        ("{rows[i][1]}", {"i": "1"}, "4"),
        ("{rows[i][0] + 1}", {"i": "1"}, "4"),
    ],
)
def test_a_template_makes_a_key(text: str, bound: dict[str, str], key: str) -> None:
    assert KeyTemplate.parse(text).fill(bound, VARIABLES) == key


@pytest.mark.parametrize(
    ("text", "bound", "message"),
    [
        ("{x+1}", {"x": "stem"}, "x is 'stem', not an integer (match it with {x:int})"),
        ("{x+1}", {"x": "1.5"}, "x is '1.5', not an integer (match it with {x:int})"),
        ("{x+1}", {"x": "9" * 20}, f"x is '{'9' * 20}', not an integer (match it with {{x:int}})"),
        ("{word*2}", {}, "word is 'layers', not an integer (match it with {x:int})"),
        ("{x//0}", {"x": "1"}, "'x // 0' divides by zero"),
        ("{x%(x-1)}", {"x": "1"}, "'x % (x - 1)' divides by zero"),
        ("{stage[i]}", {"i": "3"}, "stage has no entry 3 (it is a list of 3)"),
        ("{stage[i-1]}", {"i": "0"}, "stage has no entry -1 (it is a list of 3)"),
        ("{stage[i]}", {"i": "x"}, "stage has no entry x (it is a list of 3)"),
        ("{stage[i]}", {"i": "9" * 5000}, f"stage has no entry {'9' * 5000} (it is a list of 3)"),
        ("{names[i]}", {"i": "9"}, "names has no entry '9' (it has 0, norm)"),
        ("{names[i]}", {"i": "norm"}, "names[i] is a map, not a text (look an entry up: names[i][i])"),
        ("{stage}", {}, "stage is a list, not a text (look an entry up: stage[i])"),
        ("{n[0]}", {}, "n is neither a list nor a map"),
        ("{word[0]}", {}, "word is neither a list nor a map"),
    ],
)
def test_a_key_that_cannot_be_made_says_why(text: str, bound: dict[str, str], message: str) -> None:
    with pytest.raises(PatternError) as caught:
        KeyTemplate.parse(text).fill(bound, VARIABLES)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.*",
        "a.**",
        "{",
        "a}b",
        "{}",
        "{x:**}",
        "{x:int}",
        "{i++}",
        "{i/2}",
        "{2**i}",
        "{i<1}",
        "{f(i)}",
        "{x.y}",
        "{'a'}",
        "{1.5}",
        "{True}",
        "{x[1:2]}",
        "{(1)[0]}",
        "{[1][0]}",
        "{lambda: 1}",
        "{__import__('os')}",
        "{i:" + "+1" * 120 + "}",
        "{" + "(" * 150 + "i" + ")" * 150 + "}",
        "{" + "1+" * 150 + "1}",
    ],
)
def test_a_template_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        KeyTemplate.parse(text)


def test_names_are_those_of_the_whole_expression() -> None:
    template = KeyTemplate.parse("{a}.{stage[i + k]}.b")
    assert template.names == {"a", "stage", "i", "k"}
    assert template.placeholders == {"a"}
    with pytest.raises(KeyError):
        template.fill({"a": "x"}, {})


def test_undefined_names_of_a_template_become_placeholders() -> None:
    pattern = KeyTemplate.parse("{word}.{i}.{p}").pattern({"p": "attn.w"}, VARIABLES)
    assert pattern.match("layers.3.attn.w") == {"i": "3"}
    assert pattern.match("other.3.attn.w") is None
    with pytest.raises(PatternError, match="holds a brace"):
        KeyTemplate.parse("{i}.{p}").pattern({"p": "a*"}, {})


@given(st.integers(0, 10**6), st.integers(1, 50), st.integers(0, 10**6))
def test_arithmetic_is_pythons(i: int, j: int, k: int) -> None:
    made = KeyTemplate.parse("{i + k}.{i - k}.{i * j}.{i // j}.{i % j}").fill(
        {"i": str(i), "j": str(j), "k": str(k)}, {}
    )
    assert made == f"{i + k}.{i - k}.{i * j}.{i // j}.{i % j}"
