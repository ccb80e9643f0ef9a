"""Save a distributed checkpoint from two processes: `python -m tests.formats.distributed_save RANK FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

WORLD = 2


def tensors() -> dict[str, torch.Tensor]:
    """What is saved, whole: extents that two ranks share unevenly, and dtypes of every kind."""
    generator = torch.Generator().manual_seed(3)
    draw = torch.randn(7, 5, generator=generator)
    return {
        "rows": draw,
        "columns": draw * 2,
        "bf16": draw.bfloat16(),
        "f8": (draw[0] / 4).to(torch.float8_e5m2),
        "bool": draw[:3] > 0,
        "complex": torch.complex(draw[:5], draw[:5] * 3),
        "int16": (draw * 100).to(torch.int16),
        "one row": draw[:1],
        "long": torch.arange(600_000, dtype=torch.int32).reshape(3, 200_000),
        "replicated": draw[1],
        "plain": draw[:2].double(),
        "scalar": torch.tensor(4.5),
        "empty": torch.empty(0, 3),
    }


AXES = {"rows": 0, "columns": 1, "bf16": 1, "f8": 0, "bool": 0, "complex": 0, "int16": 1, "one row": 0, "long": 1}
"""The axis along which a tensor is cut; the others are on both ranks."""


def _save(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (WORLD,))
    state: dict[str, torch.Tensor] = {}
    for key, tensor in tensors().items():
        if key in AXES:
            parts = [*tensor.chunk(WORLD, AXES[key]), tensor.narrow(AXES[key], 0, 0)]
            # Not `distribute_tensor`: gloo sends only some of the dtypes.
            state[key] = DTensor.from_local(
                parts[rank].contiguous(), mesh, [Shard(AXES[key])], shape=tensor.shape, stride=tensor.stride()
            )
        elif key == "replicated":
            state[key] = DTensor.from_local(tensor, mesh, [Replicate()])
        else:
            state[key] = tensor
    dcp.save({"model": state, "epoch": 3}, checkpoint_id=folder / "tensors")
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 7))
    fully_shard(net)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(4, 5)).sum().backward()
    optimizer.step()
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, moments = get_state_dict(net, optimizer)
    dcp.save({"model": model, "optimizer": moments}, checkpoint_id=folder / "fsdp")
    dist.barrier()


if __name__ == "__main__":
    _save(int(sys.argv[1]), Path(sys.argv[2]))
    # All is written. Threads of gloo may abort a process that ends in the usual way (std::terminate in its own exit).
    os._exit(0)
