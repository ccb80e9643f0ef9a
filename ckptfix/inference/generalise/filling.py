"""Say why target keys are filled: the checkpoint has nothing for them, or a tensor of another size."""

from __future__ import annotations

from ckptfix.inference.company import works_for
from ckptfix.inference.generalise.task import Task
from ckptfix.inference.instead import find_instead

_MOST_NAMED = 2


def tell_filled(task: Task) -> str:
    """Write the comment above the rule that fills, with the shapes of what the checkpoint has instead."""
    shapes = {key: task.table[key].spec.shape for key in task.dropped if key in task.table}
    instead = dict(find_instead(task.filled, shapes, task.want))
    if not instead:
        return "the checkpoint has nothing for these"
    told = set(map(works_for, instead))
    nothing = "" if all(works_for(key) in told for key in task.filled) else "nothing for these, or "
    sources = list(dict.fromkeys(instead.values()))
    named = ", ".join(f"{key} {list(task.table[key].spec.shape)}" for key in sources[:_MOST_NAMED])
    return f"the checkpoint has {nothing}another size: {named}{', ...' if len(sources) > _MOST_NAMED else ''}"
