"""The index of a table finds the keys that trying each of them finds, in the same order, from rule to rule."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfix.keys import KeyIndex, KeyPattern

segments = st.sampled_from(["a", "b", "ab", "0", "1"])
keys = st.lists(segments, min_size=1, max_size=5).map(".".join)
wildcards = st.sampled_from(["a", "b", "*", "a*", "*b", "{x}", "{n:int}"])
patterns = st.lists(wildcards, min_size=1, max_size=5).map(".".join)
edits = st.lists(st.tuples(st.lists(keys, max_size=4), st.lists(keys, max_size=4)), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(keys, max_size=12, unique=True), edits, st.lists(patterns, min_size=1, max_size=3))
def test_the_index_finds_what_trying_every_key_finds(
    first: list[str], changes: list[tuple[list[str], list[str]]], texts: list[str]
) -> None:
    table: dict[str, object] = dict.fromkeys(first)
    index = KeyIndex(table)
    for gone, new in [([], []), *changes]:
        table = {key: None for key in table if key not in gone}
        added = [key for key in dict.fromkeys(new) if key not in table]
        table |= dict.fromkeys(added)
        index.follow(table, added)
        for start, end in (text.split("*")[:: text.count("*") or 1] for text in texts if "*" in text):
            assert index.between(start, end) == [key for key in table if key.startswith(start) and key.endswith(end)]


@settings(max_examples=300, deadline=None)
@given(st.lists(keys, max_size=12, unique=True), patterns)
def test_a_pattern_gives_the_keys_that_it_matches(table: list[str], text: str) -> None:
    pattern = KeyPattern.parse(text)
    assert [key for key, _ in pattern.matches(table)] == [key for key in table if pattern.match(key) is not None]
