"""`shapes:FILE`: only the shapes, from a JSON lockfile or from any checkpoint. Nothing can be built of it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from ckptfix.errors import ReadFailed, UnknownTarget
from ckptfix.formats import open_checkpoint
from ckptfix.formats.base import is_index
from ckptfix.targets.base import Target, TargetURI
from ckptfix.tensors import DType, Manifest, TensorSpec

_LARGEST = 1 << 30
_PART = 1 << 20


def resolve(uri: TargetURI) -> Target:
    """Read the shapes. Raises UnknownTarget for a file that is not there or no lockfile, and what a format raises."""
    path = Path(uri.text.partition(":")[2])  # a file name may hold a '?'
    if path.suffix == ".json" and not is_index(path.name):
        manifest = _read_lockfile(path, uri)
    else:
        if not path.exists() and not Path(str(path).partition("#")[0]).exists():
            raise UnknownTarget("no such file", where=uri.text, hint=_meant(path))
        manifest = open_checkpoint(str(path)).manifest
    return Target(uri.text, manifest, not_buildable=f"{path.name} holds shapes only")


def _meant(path: Path) -> str | None:
    """Guess the scheme that a path without a file was meant for."""
    if path.name.partition(":")[0].endswith(".py"):
        return f"write py:{path}"
    return f"for a model write timm:{path} or torchvision:{path}" if str(path).isidentifier() else None


def _read_lockfile(path: Path, uri: TargetURI) -> Manifest:
    try:
        with path.open("rb") as file:
            # By parts: one read would take the memory for the largest file that is allowed.
            document = json.loads(b"".join(islice(iter(lambda: file.read(_PART), b""), _LARGEST // _PART)))
    except FileNotFoundError as error:
        raise UnknownTarget("no such file", where=uri.text) from error
    except OSError as error:
        raise ReadFailed((error.strerror or str(error)).lower(), where=uri.text) from error
    except (ValueError, RecursionError) as error:
        raise UnknownTarget(f"no JSON: {error}", where=uri.text) from error
    try:
        return _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnknownTarget(
            f"no lockfile of shapes: {type(error).__name__}: {error}",
            where=uri.text,
            hint="`ckptfix inspect TARGET --shapes -o FILE` writes one",
        ) from error


def _manifest(document: Any) -> Manifest:  # JSON of unknown shape
    if document["schema_version"] != 1:
        raise ValueError(f"schema_version {document['schema_version']!r} is not 1")
    tensors: dict[str, dict[str, Any]] = document["tensors"]
    known: dict[TensorSpec, TensorSpec] = {}  # many tensors are alike

    def shared(spec: TensorSpec) -> TensorSpec:
        return known.setdefault(spec, spec)

    return Manifest(
        tensors={key: shared(_spec(key, entry)) for key, entry in tensors.items()},
        owners={key: str(entry["module"]) for key, entry in tensors.items() if "module" in entry},
        kinds={
            key: "buffer" if entry["kind"] == "buffer" else "param" for key, entry in tensors.items() if "kind" in entry
        },
        modules={str(path): str(text) for path, text in document.get("modules", {}).items()},
        tied=tuple(tuple(map(str, group)) for group in document.get("tied", ())),
    )


def _spec(key: str, entry: dict[str, Any]) -> TensorSpec:
    shape = entry["shape"]
    if not {int}.issuperset(map(type, shape)) or min(shape, default=0) < 0:
        raise ValueError(f"the shape of '{key}' is {shape}")
    return TensorSpec(tuple(shape), DType(entry["dtype"]))
