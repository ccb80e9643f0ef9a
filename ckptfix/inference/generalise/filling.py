"""Say why target keys are filled: the checkpoint has nothing for them, or a tensor of another size."""

from __future__ import annotations

from collections.abc import Iterator

from ckptfix.inference.company import works_for
from ckptfix.inference.generalise.task import Task

_MOST_NAMED = 2


def tell_filled(task: Task) -> str:
    """Write the comment above the rule that fills, with the shapes of what the checkpoint has instead."""
    instead = dict(_instead(task))
    if not instead:
        return "the checkpoint has nothing for these"
    told = set(map(works_for, instead))
    nothing = "" if all(works_for(key) in told for key in task.filled) else "nothing for these, or "
    sources = list(dict.fromkeys(instead.values()))
    named = ", ".join(f"{key} {list(task.table[key].spec.shape)}" for key in sources[:_MOST_NAMED])
    return f"the checkpoint has {nothing}another size: {named}{', ...' if len(sources) > _MOST_NAMED else ''}"


def _instead(task: Task) -> Iterator[tuple[str, str]]:
    """Give the filled weights, and for each the one that is dropped of its name, or its only one of another extent."""
    shapes = {key: task.table[key].spec.shape for key in task.dropped if key in task.table}
    for key in task.filled:
        wanted = task.want[key].shape
        if len(wanted) < 2:
            continue
        alike = [other for other, shape in shapes.items() if shape != wanted and shape[1:] == wanted[1:]]
        if key in shapes:
            yield key, key
        elif len(alike) == 1:
            yield key, alike[0]
