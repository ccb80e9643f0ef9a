"""Say in comments below a recipe what is open, and what of it is loaded all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from ckptfix.counts import count
from ckptfix.inference.link import Open
from ckptfix.inference.settle import Ambiguity, Answer
from ckptfix.inference.summary import group_open
from ckptfix.tensors import Manifest

_MOST_ROWS = 6
"""Rows of one reason in the comments below a recipe."""


def write_comments(
    answer: Answer, have: Manifest, want: Manifest, prefix: str, dropped: Iterable[str]
) -> Iterator[str]:
    """Write a group of lines for each reason, with the candidates.

    `prefix` is what the recipe strips of the source keys, `dropped` are those that it drops.
    """
    for group in group_open(*_with_names(answer, have, want, prefix, dropped)):
        yield _comment(f"{group.reason} ({count(group.count, 'key')}):")
        yield from (_comment(f"  {row}") for row in group.rows[:_MOST_ROWS])
        if len(group.rows) > _MOST_ROWS:
            yield _comment("  ...")


def _with_names(
    answer: Answer, have: Manifest, want: Manifest, prefix: str, dropped: Iterable[str]
) -> tuple[list[Ambiguity], dict[str, Open]]:
    """Give what is open; what the recipe loads nevertheless, since nothing moves a tensor of that name, says so."""
    gone = {key for link in answer.links for key in link.source_keys}.union(dropped)
    left = {key.removeprefix(prefix): spec.shape for key, spec in have.items() if key not in gone}
    as_is = {key for key, shape in left.items() if key in want and want[key].shape == shape}

    def tell(key: str, why: str) -> str:
        return f"{why}; loads under its own name unless you change it" if key in as_is else why

    return (
        [replace(doubt, why=tell(doubt.target, doubt.why)) for doubt in answer.ambiguous],
        {key: replace(reason, why=tell(key, reason.why)) for key, reason in answer.unresolved.items()},
    )


def _comment(text: str) -> str:
    """Write one line: a key may hold anything, line ends too."""
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f"# {''.join(shown)}\n"
