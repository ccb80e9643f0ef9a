"""Measure the values of tensors, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from ckptfix.execute.evaluate import from_bytes
from ckptfix.formats import Checkpoint, Reader


@dataclass(frozen=True)
class Stats:
    """What the finite elements of a tensor come to, and how many are not finite. None where there are none."""

    least: float | None
    largest: float | None
    mean: float | None
    deviation: float | None
    zeros: int
    nan: int
    infinite: int

    def to_json(self) -> dict[str, float | int | None]:
        """Give the fields."""
        return asdict(self)


def measure(checkpoint: Checkpoint, keys: Sequence[str]) -> Iterator[tuple[str, Stats]]:
    """Measure each tensor; of a complex one, the absolute values. Raises what reading raises."""
    with Reader(checkpoint.stamps) as reader:
        for key in keys:
            ref = checkpoint.tensors[key]
            tensor = from_bytes(reader.read(ref), ref.spec)
            numbers = (tensor.abs() if tensor.is_complex() else tensor).to(torch.float64)
            finite = numbers[torch.isfinite(numbers)]
            some = finite.numel() > 0
            # Sums and squares of the largest float64 numbers would overflow.
            scale = float(finite.abs().max()) or 1.0 if some else 1.0
            scaled = finite / scale
            yield (
                key,
                Stats(
                    least=float(finite.min()) if some else None,
                    largest=float(finite.max()) if some else None,
                    mean=float(scaled.mean()) * scale if some else None,
                    deviation=float(scaled.std(correction=0)) * scale if some else None,
                    zeros=int((finite == 0).sum()),
                    nan=int(torch.isnan(numbers).sum()),
                    infinite=int(torch.isinf(numbers).sum()),
                ),
            )
