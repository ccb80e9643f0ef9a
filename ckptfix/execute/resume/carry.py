"""Plan what goes with the weights: `--also optimizer`, or the path of another state dict of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from ckptfix.errors import InvalidCall, RuleError
from ckptfix.execute.resume.frame import Framing, NotPlain, copy_plain
from ckptfix.execute.resume.groups import deal_groups
from ckptfix.execute.resume.optimizer import OptimizerState, read_optimizer
from ckptfix.execute.resume.order import list_parameters, name_parameters
from ckptfix.execute.resume.replay import NewEntry, Replay
from ckptfix.expr import Expr, Read, replace_reads
from ckptfix.formats import Checkpoint, open_contents
from ckptfix.formats.base import Frame, Node, Reader, Slot, TensorRef
from ckptfix.formats.select import Budget, is_optimizer, resolve_path, select_state_dict
from ckptfix.planning import Plan

OPTIMIZER = "optimizer"
"""Asks for every optimizer of the file, wherever it lies."""


class Carried(Struct, frozen=True):
    """An optimizer that goes along: the parameters whose state was replayed, and why others start anew."""

    path: str
    kept: tuple[str, ...]
    reset: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """Give one entry of the list `also` of `adapt --json`."""
        return {"path": self.path, "kept": list(self.kept), "reset": dict(self.reset)}


class Companions(Struct, frozen=True):
    """All of an output beside the weights.

    `frame` is the file around the tensors, `exprs` how the further tensors are made out of `tensors`, and
    `left_out` the paths of the source that the output lacks.
    """

    frame: Frame
    exprs: Mapping[str, Expr]
    tensors: Mapping[str, TensorRef]
    carried: tuple[Carried, ...]
    left_out: tuple[str, ...]


def carry(
    checkpoint: Checkpoint, plan: Plan, also: Sequence[str], plan_for: Callable[[Checkpoint], Plan]
) -> Companions:
    """Plan the companions of the weights. `plan_for` plans another state dict of the file by the same recipe.

    Raises InvalidCall where the file has no such thing or the parameters of an optimizer cannot be told apart,
    IncompletePlan or PlanErrors where the recipe does not serve another state dict, and MalformedFile.
    """
    contents = open_contents(checkpoint.path)
    made = _Making(checkpoint, plan)
    parts: dict[str, Frame] = {checkpoint.select: {key: Slot(key) for key in plan.outputs}}
    with Reader() as reader:
        for asked in dict.fromkeys(also):
            if asked == OPTIMIZER:
                for path in _optimizer_paths(checkpoint):
                    (node, *_) = filter(is_optimizer, resolve_path(contents.root, path))
                    parts[path] = made.optimizer(read_optimizer(node, path), reader)
            else:
                parts[asked] = made.state_dict(select_state_dict(contents, asked), plan_for)
    framing = Framing(parts)
    frame = framing.frame(contents.root)
    if lost := [path for path in parts if path not in framing.placed]:
        raise InvalidCall(
            f"#{lost[0]} is no place in the file that --also can keep",
            where=str(checkpoint.path),
            hint=f"name a state dict: {', '.join(f'#{one.path}' for one in checkpoint.candidates)}",
        )
    return Companions(frame, made.exprs, made.tensors, tuple(made.carried), (*made.left_out, *framing.left_out))


def _optimizer_paths(checkpoint: Checkpoint) -> tuple[str, ...]:
    if not checkpoint.optimizers:
        raise InvalidCall("holds no optimizer", where=str(checkpoint.path), hint="leave out --also optimizer")
    return checkpoint.optimizers


class _Making(Struct):
    checkpoint: Checkpoint
    plan: Plan
    exprs: dict[str, Expr] = field(default_factory=dict)
    tensors: dict[str, TensorRef] = field(default_factory=dict)
    carried: list[Carried] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def state_dict(self, other: Checkpoint, plan_for: Callable[[Checkpoint], Plan]) -> Frame:
        """Adapt another state dict of the file, such as an average of the weights, by the same recipe."""
        path = other.select
        plan = plan_for(other)
        plan.raise_for_errors()
        plan.raise_for_gaps()
        self.tensors |= {f"#{path}.{key}": ref for key, ref in other.tensors.items()}
        for key, row in plan.outputs.items():
            self.exprs[f"#{path}.{key}"] = replace_reads(row.expr, lambda read: Read(f"#{path}.{read.key}", read.spec))
        return {key: Slot(f"#{path}.{key}") for key in plan.outputs}

    def optimizer(self, state: OptimizerState, reader: Reader) -> Frame:
        """Replay the rules on the entries of an optimizer, and number its parameters as the target's are."""
        numbers = name_parameters(state, self.checkpoint)
        for first, *others in self.checkpoint.aliases:  # a tied tensor has one number, whatever it is called
            numbers |= {other: numbers[first] for other in others if first in numbers}
        replay = Replay(state.path, numbers, state.entries, reader)
        parameters = list_parameters(self.plan.want, self.plan.want.tied)
        entries: dict[str, NewEntry] = {}
        reset: dict[str, str] = {}
        for key in parameters:
            row = self.plan.outputs.get(key)
            try:
                if row is None:
                    raise RuleError("missing from the output")
                entries[key] = replay.entry(row.expr)
            except RuleError as error:
                reset[key] = error.message
        self.tensors |= replay.tensors
        self.carried.append(Carried(state.path, tuple(entries), reset))
        groups = deal_groups(state, numbers, self.plan, parameters)
        order = [key for keys in groups for key in keys]
        return {
            "state": {
                number: self._entry(f"#{state.path}.{key}", entries[key])
                for number, key in enumerate(order)
                if key in entries
            },
            "param_groups": self._param_groups(state, groups),
        }

    def _entry(self, place: str, entry: NewEntry) -> Frame:
        return {name: self._place(f"{place}.{name}", part) for name, part in entry.items()}

    def _place(self, key: str, part: Expr | int | float | bool | None) -> Frame:
        if part is None or isinstance(part, int | float):
            return part
        self.exprs[key] = part
        return Slot(key)

    def _param_groups(self, state: OptimizerState, groups: list[list[str]]) -> list[Frame]:
        """Give the groups with their options and the numbers of their parameters."""
        start = 0
        written: list[Frame] = []
        for index, (group, keys) in enumerate(zip(state.groups, groups, strict=True)):
            options: dict[str | int, Frame] = {}
            for name, value in group.options.items():
                place = f"{state.path}.param_groups.{index}.{name}"
                try:
                    options[name] = self._option(f"#{place}", value)
                except NotPlain:
                    self.left_out.append(place)
            named: dict[str | int, Frame] = {"param_names": list(keys)} if group.names is not None else {}
            written.append({**options, **named, "params": list(range(start, start + len(keys)))})
            start += len(keys)
        return written

    def _option(self, key: str, value: Node) -> Frame:
        if isinstance(value, TensorRef):
            self.tensors[key] = value
            return self._place(key, Read(key, value.spec))
        return copy_plain(value, Budget())
