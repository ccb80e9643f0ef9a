"""Target architectures: one URI scheme a file, found by its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from ckptfix.errors import UnknownTarget
from ckptfix.formats import split_select

if TYPE_CHECKING:
    from torch.nn import Module

    from ckptfix.targets.base import Target

__all__ = ["is_target", "resolve", "schemes"]


def schemes() -> list[str]:
    """List the schemes that this installation knows."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "base" and not module.ispkg)


def is_target(text: str) -> bool:
    """Tell whether a text names a target by a scheme, known or not, rather than a file."""
    scheme, colon, _ = text.partition(":")
    if not (colon and scheme.isidentifier()):
        return False
    return scheme in schemes() or (len(scheme) > 1 and not split_select(text)[0].exists())


def resolve(target: str | Path | Module) -> Target:
    """Find a target by its URI, by the path of a checkpoint or lockfile, or take a module as it is.

    Raises UnknownTarget, TargetBuildError or MissingDependency.
    """
    from ckptfix.targets.base import TargetURI, live_target

    if isinstance(target, Path):
        return resolve(f"shapes:{target}")
    if not isinstance(target, str):
        return live_target(target)
    if not is_target(target):
        return resolve(f"shapes:{target}")
    uri = TargetURI.parse(target)
    if uri.scheme not in schemes():
        from difflib import get_close_matches

        close = get_close_matches(uri.scheme, schemes(), 1, 0.5)
        hint = f"did you mean '{close[0]}:'?" if close else f"known: {', '.join(schemes())}"
        hint = "nothing is downloaded: fetch the file first" if uri.scheme in ("http", "https") else hint
        raise UnknownTarget(f"unknown scheme '{uri.scheme}'", where=target, hint=hint)
    found: Target = import_module(f"{__name__}.{uri.scheme}").resolve(uri)
    return found
