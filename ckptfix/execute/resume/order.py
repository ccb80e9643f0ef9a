"""Which parameter is number 7: an optimizer counts its parameters, and only their order and shapes tell the names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

from ckptfix.errors import InvalidCall
from ckptfix.execute.resume.optimizer import OptimizerState, ParameterId
from ckptfix.formats import Checkpoint, wrapper_prefixes
from ckptfix.tensors import Manifest, Shape

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_MOST_STEPS = 2_000_000

_Positions = tuple[int, ...]
_Queue = list[tuple[ParameterId, Shape | None]]
"""A group's parameters in order, each with its shape where that is known."""


def list_parameters(manifest: Manifest, tied: Iterable[tuple[str, ...]]) -> list[str]:
    """List the keys that `Module.parameters` gives, in its order: buffers left out, a tied tensor once.

    A file does not tell buffers from parameters; there, integers and the statistics of normalisation are buffers.
    """
    later = {key for group in tied for key in group[1:]}
    return [key for key in manifest if key not in later and _is_parameter(key, manifest)]


def _is_parameter(key: str, manifest: Manifest) -> bool:
    if key in manifest.kinds:
        return manifest.kinds[key] == "param"
    return manifest[key].dtype.kind in ("float", "complex") and key.rpartition(".")[2] not in _STATISTICS


def name_parameters(state: OptimizerState, checkpoint: Checkpoint) -> dict[str, ParameterId]:
    """Find the key of each parameter of the optimizer.

    The file's own names come first. Else each group lists its parameters in the order of the state dict; only an
    assignment that the order and the shapes leave no choice in is taken. Raises InvalidCall for any other.
    """
    manifest = checkpoint.manifest
    names = [name for group in state.groups for name in group.names or ()]
    ids = [number for group in state.groups for number in group.ids]
    if names and len(names) == len(ids):
        return dict(zip(_match_names(names, manifest, state.path), ids, strict=True))
    keys = list_parameters(manifest, checkpoint.aliases)
    queues = [[(number, state.shape_of(number)) for number in group.ids] for group in state.groups]
    try:
        return _deal({key: manifest[key].shape for key in keys}, queues)
    except LookupError as error:
        raise InvalidCall(
            f"the {len(ids)} parameters of '{state.path}' {error.args[0]}",
            hint="save the optimizer with names: torch.optim.Adam(model.named_parameters())",
        ) from error


def _match_names(names: list[str], keys: Collection[str], path: str) -> list[str]:
    """Give the keys that the optimizer's names mean; a wrapper's prefix on one side is no difference."""
    bare = {key.removeprefix("".join(wrapper_prefixes(keys))): key for key in keys}
    wrapped = "".join(wrapper_prefixes(names))
    found = [bare.get(name.removeprefix(wrapped), "") for name in names]
    if "" in found:
        unknown = names[found.index("")]
        raise InvalidCall(f"'{path}' names the parameter '{unknown}', which the state dict lacks")
    return found


def _deal(shapes: Mapping[str, Shape], queues: list[_Queue]) -> dict[str, ParameterId]:
    """Deal the keys, in order, to the heads of the queues so that all run empty. Raises LookupError unless one way is.

    A way is a path through a graph whose nodes are the positions in the queues. `reached` holds, before each key, the
    positions that can be come to, `useful` those of them from which the end can be.
    """
    keys = list(shapes)
    end: _Positions = tuple(map(len, queues))
    may_skip = sum(end) < len(keys)  # an optimizer of all parameters is the rule, and leaves no key without a number
    ways = partial(_moves, queues=queues, may_skip=may_skip)
    reached: list[set[_Positions]] = [{(0,) * len(queues)}]
    steps = 0
    for key in keys:
        reached.append({after for positions in reached[-1] for after, _ in ways(shapes[key], positions)})
        steps += len(reached[-1])
        if steps > _MOST_STEPS:
            raise LookupError("fit the state dict in too many ways")
    useful = [reached.pop() & {end}]
    for key in reversed(keys):
        useful.append({p for p in reached.pop() if any(after in useful[-1] for after, _ in ways(shapes[key], p))})
    if not useful[-1]:
        raise LookupError("do not fit the state dict in any order")

    dealt: dict[str, ParameterId] = {}
    (positions,) = useful.pop()
    for key in keys:
        onward = [(after, number) for after, number in ways(shapes[key], positions) if after in useful[-1]]
        if len(onward) > 1:
            raise LookupError(f"fit the state dict in more than one way, from '{key}' on")
        ((positions, number),) = onward
        useful.pop()
        if number is not None:
            dealt[key] = number
    return dealt


def _moves(
    shape: Shape, positions: _Positions, queues: list[_Queue], may_skip: bool
) -> Iterator[tuple[_Positions, ParameterId | None]]:
    """Give what becomes of a key of this shape: the positions after it, and the number it is given."""
    for index, (position, queue) in enumerate(zip(positions, queues, strict=True)):
        if position < len(queue) and queue[position][1] in (None, shape):
            yield (*positions[:index], position + 1, *positions[index + 1 :]), queue[position][0]
    if may_skip:
        yield positions, None
