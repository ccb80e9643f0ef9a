"""What a checkpoint has instead of what is filled: a head of other classes, a table of another width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ckptfix.tensors import Manifest, Shape


def find_instead(filled: Iterable[str], dropped: Mapping[str, Shape], want: Manifest) -> Iterator[tuple[str, str]]:
    """Give the filled weights, and for each the one that is dropped of its name, or its only one of another extent.

    `dropped` are the shapes by the keys of the table, without the prefixes of wrappers.
    """
    for key in filled:
        wanted = want[key].shape
        if len(wanted) < 2:
            continue
        alike = [other for other, shape in dropped.items() if shape != wanted and shape[1:] == wanted[1:]]
        if key in dropped:
            yield key, key
        elif len(alike) == 1:
            yield key, alike[0]
