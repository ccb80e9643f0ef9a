"""Carry a plan out in a live module instead of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import Parameter

from ckptfix.errors import TargetBuildError
from ckptfix.execute.evaluate import to_bytes
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.values import Values
from ckptfix.formats import Checkpoint, Reader
from ckptfix.planning import Plan
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def load_state(module: Module, plan: Plan, checkpoint: Checkpoint, live: Target) -> None:
    """Give a module every tensor of a complete plan. Nothing is changed until all are computed.

    Raises TiedConflict, NonFinite, TargetBuildError for a tensor on the meta device that no state dict holds, and what
    reading raises.
    """
    present = module.state_dict(keep_vars=True)
    _refuse_hollow_buffers(module, live)
    with Reader(checkpoint.stamps) as reader:
        values = Values(checkpoint.tensors, reader, live, plan.origin_of)
        state = {key: values.tensor(key, row.expr) for key, row in plan.outputs.items()}
        reader.check_unchanged()
    refuse_conflicts(plan, lambda key: to_bytes(state[key]))
    on_meta = any(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in present.values())
    if on_meta:  # copying into a meta tensor does nothing: the tensors themselves must be exchanged
        state = _replacements(plan, state, present)
    others = {key: value for key, value in present.items() if key not in state}  # `get_extra_state` gives them
    with torch.no_grad():
        module.load_state_dict(state | others, strict=True, assign=on_meta)


def _refuse_hollow_buffers(module: Module, live: Target) -> None:
    """Refuse buffers that would stay on the meta device, since they are of no state dict."""
    hollow = [key for key, buffer in module.named_buffers() if buffer.is_meta and key not in live.manifest]
    if hollow:
        raise TargetBuildError(
            f"the buffer '{hollow[0]}' is on the meta device, and no state dict holds it",
            where=live.text,
            hint="build the module on the CPU",
        )


def _replacements(plan: Plan, state: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make tensors like the present ones; a tied group stays one parameter."""
    first = {key: group[0] for group in plan.want.tied for key in group}
    made: dict[str, Tensor] = {}
    for key in state:
        owner = first.get(key, key)
        if owner not in made:
            old = present[owner]
            device = state[owner].device if old.is_meta else old.device
            new = state[owner].to(device, old.dtype)
            made[owner] = Parameter(new, old.requires_grad) if plan.want.kinds.get(owner) == "param" else new
        made[key] = made[owner]
    return {key: made[key] for key in state}
