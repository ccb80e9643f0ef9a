"""`digits`: the 1,797 grey images of 8 x 8 pixels that scikit-learn carries with it (UCI Optical Recognition)."""

from __future__ import annotations

import torch

from ckptfix.errors import InvalidCall, MissingDependency
from ckptfix.proof.data.base import Data, Wish, assemble


def load(body: str, wish: Wish) -> Data:
    """Load scikit-learn's digits. Raises MissingDependency without scikit-learn."""
    if body:
        raise InvalidCall(f"'digits:{body}': digits takes nothing after its name")
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        hint = 'pip install "ckptfix[finetune]"'
        raise MissingDependency(f"'digits' needs {error.name}, which is not installed", hint=hint) from error
    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.as_tensor(labels, dtype=torch.int64)
    return assemble("digits", x, y, wish)
