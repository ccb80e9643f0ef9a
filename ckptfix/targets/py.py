"""`py:package.module:factory?depth=12` and `py:./model.py:build`: code of the user's own.

The one scheme that runs code which is not of an installed library: the user names it on the command line.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ckptfix.errors import TargetBuildError, UnknownTarget
from ckptfix.targets.base import Target, TargetURI, module_target

if TYPE_CHECKING:
    from torch.nn import Module


def resolve(uri: TargetURI) -> Target:
    """Import the module and call the factory with the options after '?'.

    Raises UnknownTarget where module or factory do not exist, TargetBuildError where importing raises.
    """
    place, colon, name = uri.body.rpartition(":")
    if not (colon and place and name):
        raise UnknownTarget("no factory is named", where=uri.text, hint="write py:package.module:factory")
    folder = Path(place).resolve().parent if place.endswith(".py") else Path.cwd()
    with _import_path(folder):
        factory = _attribute(_import(place, uri), name, uri)

    def make() -> Module:
        from torch.nn import Module

        with _import_path(folder):  # a factory may import when it is called
            built = factory(**uri.query)
        if not isinstance(built, Module):
            raise TypeError(f"'{name}' gave a {type(built).__name__}, not a torch.nn.Module")
        return built

    return module_target(uri.text, make, lambda module: None)


def _import(place: str, uri: TargetURI) -> ModuleType:
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise UnknownTarget(f"no such file: {place}", where=uri.text)
    try:
        return _import_file(Path(place)) if is_file else importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise UnknownTarget(
                f"no module '{error.name}'", where=uri.text, hint="run from the folder that holds it, or install it"
            ) from error
        raise TargetBuildError(f"importing {place} needs '{error.name}'", where=uri.text) from error
    except (Exception, SystemExit) as error:  # a script that calls `sys.exit` must not end this one
        raise TargetBuildError(f"importing {place} raised {type(error).__name__}: {error}", where=uri.text) from error


def _import_file(path: Path) -> ModuleType:
    name = f"_ckptfix_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look modules up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """Let imports find modules beside the file, or in the working directory, as `python` itself would."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have changed the path itself
            sys.path.remove(str(folder))


def _attribute(module: ModuleType, name: str, uri: TargetURI) -> Callable[..., object]:
    factory: object = getattr(module, name, None)
    if callable(factory):
        return factory
    close = get_close_matches(name, [other for other in vars(module) if not other.startswith("_")], 3, 0.5)
    message = f"no '{name}' in {uri.body.rpartition(':')[0]}" if factory is None else f"'{name}' cannot be called"
    raise UnknownTarget(message, where=uri.text, hint=f"did you mean {', '.join(close)}?" if close else None)
