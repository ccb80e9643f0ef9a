"""Train a digit classifier, starting from a checkpoint of another class count.

    python train.py --source mobilenet_v2-b0353104.pth --out prepared

The first lines of `main` are all that a training script needs: they adapt the checkpoint, prove it, and find it done
the next time. The rest is plain PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import mobilenet_v2

import ckptfix

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Prepare the checkpoint, load it strictly, train what is new first and then everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True, help="mobilenet_v2-b0353104.pth")
    parser.add_argument("--out", type=Path, default=Path("prepared"), help="folder of the prepared checkpoint")
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()

    out = options.out.resolve()
    prepared = ckptfix.prepare(
        HERE / "step.yaml",
        overrides={
            "source": str(options.source.resolve()),
            "output": str(out / "model.safetensors"),
            "report": str(out / "report"),
        },
    )
    print("found" if prepared.cached else "prepared", prepared.output.name)

    torch.manual_seed(0)
    model = mobilenet_v2(num_classes=10)
    model.load_state_dict(load_file(prepared.output), strict=True)

    frozen = ckptfix.freeze(model, "frozen", filled=prepared.receipt.filled)
    before = frozen.digests()
    print(f"head only: loss {train(model, options.images):.3f}")
    assert not frozen.drifted(before), "a frozen tensor moved"
    frozen.release()
    print(f"all of it: loss {train(model, options.images):.3f}")


def train(model: torch.nn.Module, images: int) -> float:
    """Train one epoch on the first images; give the mean loss of the last ten steps."""
    digits = load_digits()
    x = torch.tensor(digits.images[:images], dtype=torch.float32).unsqueeze(1).repeat(1, 3, 1, 1) / 8 - 1
    x = functional.interpolate(x, size=(64, 64), mode="bilinear")
    y = torch.tensor(digits.target[:images])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses: list[float] = []
    model.train()  # what is frozen stays in eval mode
    for inputs, labels in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / len(losses[-10:])


if __name__ == "__main__":
    main()
