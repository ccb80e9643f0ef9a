from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.errors import PatternError
from ckptfix.keys import KeyPattern, KeyTemplate, nearest_keys, nearest_to_each


def match(pattern: str, key: str) -> dict[str, str] | None:
    return KeyPattern.parse(pattern).match(key)


@pytest.mark.parametrize(
    ("pattern", "key", "bound"),
    [
        ("fc.weight", "fc.weight", {}),
        ("fc", "fc1.weight", None),
        ("fc", "blocks.0.fc", None),
        ("fc", "fc.weight", None),
        ("a.b", "aXb", None),
        ("a+(b)|c", "a+(b)|c", {}),
        ("blocks.{i}.w", "blocks.12.w", {"i": "12"}),
        ("blocks.{i}.w", "blocks.1.2.w", None),
        ("blocks.{i}.w", "blocks..w", None),
        ("encoder_layer_{i}.w", "encoder_layer_7.w", {"i": "7"}),
        ("encoder_layer_{i}.w", "encoder_layer_.w", None),
        ("fc*.w", "fc12.w", {}),
        ("fc*.w", "fc.w", None),
        ("*", "weight", {}),
        ("*", "a.weight", None),
        ("{i:int}.w", "07.w", {"i": "07"}),
        ("{i:int}.w", "x.w", None),
        ("{i:int}.w", "\u0663.w", None),
        ("{k:**}", "a", {"k": "a"}),
        ("module.{k:**}", "module.a.b", {"k": "a.b"}),
        ("module.{k:**}", "module.", None),
        ("{k:**}.weight", "a.b.weight", {"k": "a.b"}),
        ("{k:**}.weight", "weight", None),
        ("**", "", None),
        ("**.w", "a.b.w", {}),
        ("a.**.w", "a.w", None),
        ("{l:q|k}_proj", "k_proj", {"l": "k"}),
        ("{l:q|k}_proj", "v_proj", None),
        ("{l:a.b|c}.w", "a.b.w", {"l": "a.b"}),
        ("{l:q|q.x}.w", "q.x.w", {"l": "q.x"}),
        ("{x:/[a-c]{2}/}.w", "ab.w", {"x": "ab"}),
        ("{x:/[a-c]{2}/}.w", "abc.w", None),
        ("{x:/a|b/}.w", "b.w", {"x": "b"}),
        ("{x}.{x}", "a.a", {"x": "a"}),
        ("{x}.{x}", "a.b", None),
        ("{x}.{x:int}", "a.a", None),
        ("{x:int}.{x}", "3.3", {"x": "3"}),
        ("{x:/[ab]/}.{i}.{x}_n", "b.0.b_n", {"x": "b", "i": "0"}),
        ("{x:/[ab]/}.{i}.{x}_n", "b.0.a_n", None),
        ("{x:**}.to.{x}", "a.b.to.a.b", {"x": "a.b"}),
        ("{a}_{b}_{c}.{a}", "x_y_z.x", {"a": "x", "b": "y", "c": "z"}),
        ("{a}_{b}_{c}.{a}", "x_y_z_w.x", {"a": "x", "b": "y_z", "c": "w"}),
        ("{a}{b}{c}", "x", None),
        ("a.*", "a.line\nbreak", {}),
        ("{x:/.+/}", "a\nb", {"x": "a\nb"}),
    ],
)
def test_a_pattern_matches_whole_keys(pattern: str, key: str, bound: dict[str, str] | None) -> None:
    assert match(pattern, key) == bound
    assert [found for _, found in KeyPattern.parse(pattern).matches([key])] == ([] if bound is None else [bound])


def test_names_are_listed_once_in_order() -> None:
    assert KeyPattern.parse("{b}.{a}.{b}.*").names == ("b", "a")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "an empty pattern matches no key"),
        ("a{b", "'a{b': a stray '{' (a placeholder reads {name})"),
        ("a}b", "'a}b': a stray '}' (a placeholder reads {name})"),
        ("{}", "'{}': a stray '{' (a placeholder reads {name})"),
        ("{1}", "'{1}': a stray '{' (a placeholder reads {name})"),
        ("**.**", "'**.**': '**' may stand once in a pattern"),
        ("{a:**}.x.**", "'{a:**}.x.**': '**' may stand once in a pattern"),
        ("{a:**}.{a:**}", "'{a:**}.{a:**}': '**' may stand once in a pattern"),
        ("a**", "'a**': '**' must be a whole segment (use '*' inside a segment)"),
        ("**a", "'**a': '**' must be a whole segment (use '*' inside a segment)"),
        ("x.{k:**}_y", "'x.{k:**}_y': '{k:**}' must be a whole segment (use '*' inside a segment)"),
        (
            "{i:integer}",
            "'{i:integer}': '{i:integer}' is no placeholder (write {x}, {x:int}, {x:**}, {x:a|b} or {x:/regex/})",
        ),
        ("{x:}", "'{x:}': '{x:}' is no placeholder (write {x}, {x:int}, {x:**}, {x:a|b} or {x:/regex/})"),
        ("{x://}", "'{x://}': '{x://}' is no placeholder (write {x}, {x:int}, {x:**}, {x:a|b} or {x:/regex/})"),
        ("{x:/(/}", "'{x:/(/}': missing ): ("),
        ("{x:/a)(b/}", "'{x:/a)(b/}': unexpected ): a)(b"),
        (r"{x:/(a)\1/}", r"'{x:/(a)\1/}': invalid escape sequence: \1"),
        ("{x:int}.{x:a|b}", "'{x:int}.{x:a|b}': 'x' stands for 'int' and for 'a|b' (say it once)"),
    ],
)
def test_a_malformed_pattern_says_what_is_wrong(pattern: str, message: str) -> None:
    with pytest.raises(PatternError) as caught:
        KeyPattern.parse(pattern).check()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("{x:/^(a+)+$/}.w", "a" * 50_000 + "!"),
        ("{x:/(a|aa)+/}", "a" * 50_000 + "!"),
        ("*a*a*a*a*a*b", "a" * 20_000),
        ("*a*.*a*.*a*.*a*.x", ".".join(["a" * 500] * 4) + ".y.x"),
        ("**.a*a*.w", ".".join(["a" * 40] * 100) + ".v.w"),
        ("{a:x.|x}{b:x.|x}{c:x.|x}{d:x.|x}*y", "x." * 20_000 + "z"),
        (".".join(f"{{x{n}:a|a}}" for n in range(40)) + ".{y}z", ".".join(["a"] * 40) + ".y"),
    ],
)
def test_matching_takes_linear_time(pattern: str, key: str) -> None:
    parsed = KeyPattern.parse(pattern)
    parsed.check()
    start = time.process_time()
    assert parsed.match(key) is None
    assert time.process_time() - start < 1


SEGMENT = st.text("ab1_-", min_size=1, max_size=4)
KEY = st.lists(SEGMENT, min_size=1, max_size=5)


@given(KEY, st.data())
def test_a_pattern_made_from_a_key_matches_it_and_fills_it_back(segments: list[str], data: st.DataObject) -> None:
    pattern = list(segments)
    for place in data.draw(st.sets(st.integers(0, len(segments) - 1))):
        forms = [f"{{n{place}}}", f"{{n{place}:{segments[place]}|zz}}", f"{{n{place}:/[^.]+/}}"]
        if segments[place].isdecimal():
            forms.append(f"{{n{place}:int}}")
        pattern[place] = data.draw(st.sampled_from(forms))
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(segments) - 1))
        stop = data.draw(st.integers(start + 1, len(segments)))
        pattern[start:stop] = ["{many:**}"]
    parsed = KeyPattern.parse(".".join(pattern))
    key = ".".join(segments)
    bound = parsed.match(key)
    assert bound is not None
    template = KeyTemplate.parse(
        ".".join("{" + name.strip("{}").partition(":")[0] + "}" if "{" in name else name for name in pattern)
    )
    assert template.fill(bound, {}) == key
    assert template.pattern({}, {}).names == tuple(parsed.names)


@given(st.lists(SEGMENT, min_size=1, max_size=3), KEY)
def test_a_literal_pattern_matches_its_own_key_only(segments: list[str], other: list[str]) -> None:
    text, key = ".".join(segments), ".".join(other)
    assert match(text, text) == {}
    assert (match(text, key) is not None) == (text == key)
    for longer in (f"{text}1", f"x{text}", f"{text}.w", f"w.{text}"):
        assert match(text, longer) is None


def test_the_nearest_keys_come_best_first() -> None:
    keys = ["backbone.conv1.weight", "backbone.conv2.weight", "head.bias", "classifier.weight"]
    assert nearest_keys("backbone.conv1.wieght", keys) == ["backbone.conv1.weight", "backbone.conv2.weight"]
    assert nearest_keys("zzz", keys) == []
    assert nearest_to_each(["head.bais", "qqq"], keys, 1) == {"head.bais": ("head.bias",), "qqq": ()}
