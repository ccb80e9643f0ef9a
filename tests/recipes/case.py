"""What a proof of a recipe needs: two small models, an input, and numbers in every tensor that matter to the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def images(size: int, count: int = 2) -> Callable[[], Tensor]:
    """Give random images, [count, 3, size, size]."""
    return lambda: torch.randn(count, 3, size, size)


def tokens(vocabulary: int, length: int = 12) -> Callable[[], Tensor]:
    """Give random tokens, [2, length]."""
    return lambda: torch.randint(0, vocabulary, (2, length))


def save_state(model: nn.Module, folder: Path) -> Path:
    """Save the state dict as it is."""
    torch.save(model.state_dict(), folder / "source.pth")
    return folder / "source.pth"


def save_pretrained(model: nn.Module, folder: Path) -> Path:
    """Save a model of transformers as it saves itself."""
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder / "model.safetensors"


def renamed(rename: Callable[[State], State]) -> Callable[[nn.Module, Path], Path]:
    """Save the state dict under other names."""

    def save(model: nn.Module, folder: Path) -> Path:
        torch.save(rename(model.state_dict()), folder / "source.pth")
        return folder / "source.pth"

    return save


def itself(model: nn.Module) -> nn.Module:
    """Compare with the source model as it is."""
    return model


def whole(output: Tensor) -> Tensor:
    """Compare the whole output."""
    return output


@dataclass(frozen=True)
class Case:
    """A recipe at work.

    `save` writes the source model to a file. `reference` makes of it, later, the model whose output is compared,
    `expected` turns that output into the target model's, `compared` picks what is compared of both.
    """

    recipe: str
    source: Callable[[], nn.Module]
    target: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    name: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    save: Callable[[nn.Module, Path], Path] = save_state
    reference: Callable[[nn.Module], nn.Module] = itself
    expected: Callable[[Tensor], Tensor] = whole
    compared: Callable[[Tensor], Tensor] = whole

    def __str__(self) -> str:
        return f"{self.recipe}-{self.name}" if self.name else self.recipe


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Give every parameter and running statistic a number of its own, so that no two tensors are alike."""
    for key, tensor in model.state_dict(keep_vars=False).items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(int(torch.randint(1, 1000, ())))
        elif not tensor.is_floating_point():
            continue  # an index that the constructor computes
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() >= 2 and not key.endswith(("layer_scale", "weight_g", "original0")):
            tensor.normal_(std=1.3 / max(tensor[0].numel(), 1) ** 0.5)
        elif key.endswith("bias") or "mean" in key:
            tensor.normal_(std=0.3)
        else:
            tensor.normal_(mean=1, std=0.3)


@torch.no_grad()
def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Run a model; of a transformers output, the logits or else the last hidden state."""
    made: Any = model.eval()(inputs)
    if isinstance(made, Tensor):
        return made
    return made["logits"] if "logits" in made else made["last_hidden_state"]
