"""Find the source that a data URI names."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from msgspec.structs import asdict

from ckptfix.errors import InvalidCall
from ckptfix.proof.data.base import Data, Wish

_OFFER = "one of digits, mnist5k, folder:DIR, py:module:factory"
_NOT_SOURCES = frozenset({"base", "load"})


def list_sources() -> list[str]:
    """List the sources: the modules of this package."""
    here = str(Path(__file__).parent)
    return sorted(module.name for module in pkgutil.iter_modules([here]) if module.name not in _NOT_SOURCES)


def load_data(
    uri: str,
    *,
    channels: int,
    size: int | tuple[int, int],
    classes: int,
    seed: int = 0,
    train_per_class: int = 10,
    test_per_class: int = 40,
) -> Data:
    """Load the data set that `uri` names, fitted to a model: `digits`, `mnist5k`, `folder:DIR`, `py:place:factory`.

    `size` is pixels, one number or (height, width); `classes` the width of the model's output, of which a data
    set with fewer classes uses the first. Raises InvalidCall for an unknown source, and what the source raises.
    """
    scheme, _, body = uri.partition(":")
    sources = list_sources()
    if scheme not in sources:
        near = get_close_matches(scheme, sources, 1)
        offer = f"did you mean '{near[0]}'? " if near else ""
        raise InvalidCall(
            f"'{uri}' names no data set", hint=f"{offer}one of digits, mnist5k, folder:DIR, py:module:factory"
        )
    height, width = (size, size) if isinstance(size, int) else size
    wish = Wish(channels, height, width, classes, seed, train_per_class, test_per_class)
    for name, value in asdict(wish).items():
        if name != "seed" and value < 1:
            raise InvalidCall(f"{name} is {value}, not a positive number")
    loaded: Data = import_module(f"ckptfix.proof.data.{scheme}").load(body, wish)
    return loaded
