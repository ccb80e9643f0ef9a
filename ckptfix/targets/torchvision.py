"""`torchvision:mobilenet_v2?num_classes=5`: a model of torchvision's registry, never with its weights."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ckptfix.errors import MissingDependency, UnknownTarget
from ckptfix.targets.base import Target, TargetURI, module_target
from ckptfix.tensors import Shape

if TYPE_CHECKING:
    from torch.nn import Module


def resolve(uri: TargetURI) -> Target:
    """Build the named model. Raises UnknownTarget with the nearest names."""
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingDependency(
            "torchvision is not installed", where=uri.text, hint='pip install "ckptfix[models]"'
        ) from error
    names = models.list_models()
    if uri.body not in names:
        close = get_close_matches(uri.body, names, 3, 0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "torchvision.models.list_models() has the names"
        raise UnknownTarget(f"torchvision has no model '{uri.body}'", where=uri.text, hint=hint)
    if uri.query.keys() & {"weights", "weights_backbone"}:
        raise UnknownTarget("a target has no weights of its own", where=uri.text, hint="leave them out")
    options = {"weights": None} | dict(uri.query)
    if "weights_backbone" in inspect.signature(models.get_model_builder(uri.body)).parameters:
        options["weights_backbone"] = None  # else a download

    def make() -> Module:
        built: Module = models.get_model(uri.body, **options)
        return built

    return module_target(uri.text, make, lambda module: _input_shape(models.get_model_weights(uri.body), uri))


def _input_shape(weights: Any, uri: TargetURI) -> Shape | None:  # an enum class that torchvision makes
    """Read [channels, height, width] off the preprocessing of the default weights; None for other inputs."""
    transforms = weights.DEFAULT.transforms()
    size = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None)
    if not size or not type(transforms).__name__.startswith(("ImageClassification", "SemanticSegmentation")):
        return None
    side = uri.query.get("image_size", size[-1])
    return (3, side, side) if isinstance(side, int) else None
