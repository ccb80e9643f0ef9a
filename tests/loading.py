"""Load at once what a command loads when a file at hand needs it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import ckptfix.formats


def load_formats() -> None:
    """Import every module that reads or writes files."""
    for module in walk_packages(ckptfix.formats.__path__, f"{ckptfix.formats.__name__}."):
        import_module(module.name)
