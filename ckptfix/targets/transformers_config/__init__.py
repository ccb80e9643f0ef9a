"""Architectures of transformers, built from the settings of a `config.json`: no weights, and no code but its own.

Shared by the schemes that end at such a file; a package is not a scheme.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ckptfix.errors import MissingDependency
from ckptfix.targets.base import Target, TargetURI, module_target
from ckptfix.tensors import Shape

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["config_target"]


def config_target(uri: TargetURI, path: Path, query: Mapping[str, Any]) -> Target:
    """Build what the file describes; `query` is the class and the fields to override.

    Raises MissingDependency without transformers, UnknownTarget for a file, class or field that does not exist and for
    a model that only remote code could build, ReadFailed, and TargetBuildError for values that transformers refuses.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            "transformers is not installed", where=uri.text, hint='pip install "ckptfix[models]"'
        ) from error
    from ckptfix.targets.transformers_config.architecture import choose_architecture
    from ckptfix.targets.transformers_config.document import read_settings
    from ckptfix.targets.transformers_config.fields import list_values

    settings = read_settings(path, uri)
    overrides = {name: value for name, value in query.items() if name != "class"}
    chosen = choose_architecture(settings, query.get("class"), overrides, uri)

    def make() -> Module:
        return chosen.build(copy.deepcopy(chosen.config))  # building writes to the config

    target = module_target(uri.text, make, _input_shape, list_values(chosen.config))
    return replace(target, notes=(*chosen.notes, *target.notes))


def _input_shape(module: Module) -> Shape | None:
    """Read [channels, height, width] off the config of a model of images; None for other inputs."""
    config = getattr(module, "config", None)
    size = getattr(config, "image_size", None)
    shape = (getattr(config, "num_channels", None), *(size if isinstance(size, list | tuple) else (size, size)))
    is_image = getattr(module, "main_input_name", None) == "pixel_values" and len(shape) == 3
    return shape if is_image and all(type(extent) is int for extent in shape) else None
