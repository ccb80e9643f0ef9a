"""The page of suggested recipes has what `suggest` prints, to the letter."""

from __future__ import annotations

from pathlib import Path

from tests.inference.suggested import EXAMPLES, page

PAGE = Path(__file__).parents[2] / "docs" / "suggested.md"


def test_the_page_is_as_generated() -> None:
    assert page(EXAMPLES) == PAGE.read_text(encoding="utf-8")
