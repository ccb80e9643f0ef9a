"""Read a `config.json`, and take out of it what would run code or read weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from ckptfix.errors import ReadFailed, UnknownTarget
from ckptfix.targets.base import TargetURI

_LARGEST = 64 << 20
_CODE = ("auto_map", "custom_pipelines", *(
    f"{hidden}{kind}_implementation{internal}"
    for hidden in ("", "_")
    for kind in ("attn", "experts")
    for internal in ("", "_internal")
))  # fmt: skip
"""Fields that name code: modules of the repository, and kernels, which transformers would fetch from the hub."""
_WEIGHTS = ("checkpoint_path",)
"""Fields of nested options that make timm read a file of weights while it builds."""


class Settings(Struct, frozen=True):
    """The JSON values of a config, without code; `remote_code` are the names that its `auto_map` gives."""

    values: dict[str, Any]
    remote_code: tuple[str, ...]


def read_settings(path: Path, uri: TargetURI) -> Settings:
    """Read the file. Raises UnknownTarget for one that is not there or no config, ReadFailed where reading fails."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LARGEST))
    except FileNotFoundError as error:
        raise UnknownTarget(f"no such file: {path}", where=uri.text) from error
    except IsADirectoryError as error:
        raise UnknownTarget("is a folder", where=uri.text, hint=f"write hf:{path}") from error
    except OSError as error:
        raise ReadFailed((error.strerror or str(error)).lower(), where=uri.text) from error
    except (ValueError, RecursionError) as error:
        raise UnknownTarget(f"{path.name} is no JSON: {error}", where=uri.text) from error
    if not isinstance(document, dict):
        raise UnknownTarget(f"{path.name} is no config: it holds a {type(document).__name__}", where=uri.text)
    weights = sorted({name for part in _maps(document) for name in part if name in _WEIGHTS})
    if weights:
        raise UnknownTarget("a target has no weights of its own", where=uri.text, hint=f"remove '{weights[0]}'")
    auto_map = document.get("auto_map")
    remote = auto_map.items() if isinstance(auto_map, dict) else ()
    return Settings(
        values=_without_code(document),
        remote_code=tuple(str(name) for kind, name in remote if str(kind).startswith(("AutoModel", "AutoConfig"))),
    )


def _maps(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _maps(child)


def _without_code(value: Any) -> Any:  # JSON
    if isinstance(value, dict):
        return {name: _without_code(child) for name, child in value.items() if name not in _CODE}
    return [_without_code(child) for child in value] if isinstance(value, list) else value
