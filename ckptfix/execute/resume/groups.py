"""Which parameter group of an optimizer each parameter of the target belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptfix.errors import InvalidCall
from ckptfix.execute.resume.optimizer import OptimizerState, ParameterId
from ckptfix.expr import sources
from ckptfix.planning import Plan


def deal_groups(
    state: OptimizerState, numbers: Mapping[str, ParameterId], plan: Plan, parameters: Sequence[str]
) -> list[list[str]]:
    """Give each group the target's parameters that belong to it, in the target's order.

    A parameter belongs where its source does; one that was made anew, where the source's of the same name does, or
    else those of as many axes, if they are all in one group (weights decay, biases do not). A parameter of the target
    whose source was not trained is in none. Raises InvalidCall where neither tells.
    """
    home = {number: index for index, group in enumerate(state.groups) for number in group.ids}
    homes = {key: home[number] for key, number in numbers.items()}
    by_rank: dict[int, set[int]] = {}
    for key, index in homes.items():
        by_rank.setdefault(len(plan.have[key].shape), set()).add(index)
    dealt: list[list[str]] = [[] for _ in state.groups]
    for key in parameters:
        row = plan.outputs.get(key)
        parents = [key, *(sources(row.expr) if row else [])]
        trained = [homes[parent] for parent in reversed(parents) if parent in homes]
        alike = by_rank.get(len(plan.want[key].shape), set())
        if trained:
            dealt[trained[0]].append(key)
        elif row is not None and sources(row.expr):
            continue
        elif len(state.groups) == 1 or len(alike) == 1:
            dealt[alike.pop() if len(state.groups) > 1 else 0].append(key)
        else:
            raise InvalidCall(
                f"'{key}' is new, and may belong to any of {len(state.groups)} parameter groups of '{state.path}'",
                hint="leave out --also optimizer, and set the optimizer up anew",
            )
    return dealt
