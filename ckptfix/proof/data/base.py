"""What a data source is asked for and what it gives: a small training set and a disjoint test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from msgspec import Struct
from torch import Tensor

from ckptfix.errors import InvalidCall

Inputs = Tensor | Mapping[str, Tensor]
"""A batch for a model: a tensor, or the keyword arguments of its `forward`."""


class Examples(Protocol):
    """Labelled examples that can be batched."""

    def __len__(self) -> int: ...

    def gather(self, rows: Sequence[int]) -> tuple[Inputs, Tensor]:
        """Give the inputs of those examples, stacked, and their labels as int64 `[n]`."""


class TensorExamples(Struct, frozen=True):
    """Examples in memory: `x` `[n, channels, height, width]`, float32 or uint8 before `scale`, `y` int64 `[n]`.

    `mean` and `deviation`, `[channels, 1, 1]`, standardise a batch when it is gathered.
    """

    x: Tensor
    y: Tensor
    mean: Tensor
    deviation: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def gather(self, rows: Sequence[int]) -> tuple[Inputs, Tensor]:
        """Give standardised float32 images and their labels."""
        index = torch.as_tensor(rows)
        return (self.x[index].float() - self.mean) / self.deviation, self.y[index]


class Data(Struct, frozen=True):
    """Training and test examples of the classes 0 to `len(classes) - 1`; `available` classes were on offer."""

    uri: str
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    available: int

    def to_json(self) -> dict[str, object]:
        """Describe the data set in the report."""
        return {
            "uri": self.uri,
            "train": len(self.train),
            "test": len(self.test),
            "classes": list(self.classes),
            "available_classes": self.available,
        }


class Wish(Struct, frozen=True):
    """What the model needs: images `[channels, height, width]` of at most `classes` classes.

    `train_per_class` and `test_per_class` are upper bounds; `seed` decides which images are taken.
    """

    channels: int
    height: int
    width: int
    classes: int
    seed: int
    train_per_class: int
    test_per_class: int


def split_rows(counts: Sequence[int], wish: Wish) -> list[tuple[list[int], list[int]]]:
    """Draw the rows of the training and of the test set for each class, of which there are `counts` images.

    A class too small for both keeps at least a third for the test. Raises InvalidCall for fewer than 2 images.
    """
    generator = torch.Generator().manual_seed(wish.seed)
    drawn = []
    for label, count in enumerate(counts):
        if count < 2:
            raise InvalidCall(f"class {label} has {count} images", hint="training and test need one image each")
        rows = torch.randperm(count, generator=generator).tolist()
        take = min(wish.train_per_class, count - max(1, count // 3))
        drawn.append((rows[:take], rows[take : take + wish.test_per_class]))
    return drawn


def count_classes(available: int, wish: Wish, uri: str) -> int:
    """Decide how many classes are used: the first ones, as many as both sides have. Raises InvalidCall below 2."""
    classes = min(available, wish.classes)
    if classes < 2:
        raise InvalidCall(
            f"{uri}: {available} classes for a model with {wish.classes} outputs",
            hint="fine-tuning needs at least 2 on both sides",
        )
    return classes


def assemble(uri: str, x: Tensor, y: Tensor, wish: Wish) -> Data:
    """Split grey images `[n, 1, h, w]` of the digits `y` `[n]`, and bring both parts to the wished size.

    The images are resampled bilinearly and repeated over the channels, after the split: all of them would be large.
    """
    names = [str(digit) for digit in range(10)]
    classes = count_classes(len(names), wish, uri)
    members = [torch.nonzero(y == label).flatten() for label in range(classes)]
    drawn = split_rows([len(rows) for rows in members], wish)
    train = torch.cat([rows[part] for rows, (part, _) in zip(members, drawn, strict=True)])
    test = torch.cat([rows[part] for rows, (_, part) in zip(members, drawn, strict=True)])
    sides = [(_resize(x[rows], wish), y[rows]) for rows in (train, test)]
    return standardise(uri, sides[0], sides[1], tuple(names[:classes]), len(names))


def _resize(x: Tensor, wish: Wish) -> Tensor:
    x = torch.nn.functional.interpolate(x, size=(wish.height, wish.width), mode="bilinear", antialias=True)
    return x.repeat(1, wish.channels, 1, 1)


def standardise(
    uri: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    available: int,
) -> Data:
    """Build the data set: both parts are standardised per channel with the statistics of the training images."""
    pixels = train[0].double()
    mean = pixels.mean(dim=(0, 2, 3)).float()[:, None, None]
    deviation = pixels.std(dim=(0, 2, 3)).float().clamp_min(1e-6)[:, None, None]
    return Data(
        uri,
        TensorExamples(*train, mean, deviation),
        TensorExamples(*test, mean, deviation),
        classes,
        available,
    )
