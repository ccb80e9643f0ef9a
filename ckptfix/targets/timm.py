"""`timm:vit_base_patch16_224?num_classes=10`: a model of timm's registry, never with its weights."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from ckptfix.errors import MissingDependency, UnknownTarget
from ckptfix.targets.base import Target, TargetURI, module_target
from ckptfix.tensors import Shape

if TYPE_CHECKING:
    from torch.nn import Module


def resolve(uri: TargetURI) -> Target:
    """Build the named model. Raises UnknownTarget with the nearest names."""
    try:
        import timm
    except ImportError as error:
        raise MissingDependency(
            "timm is not installed", where=uri.text, hint='pip install "ckptfix[models]"'
        ) from error
    if not timm.is_model(uri.body):
        close = get_close_matches(uri.body, timm.list_models(), 3, 0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() has the names"
        raise UnknownTarget(f"timm has no model '{uri.body}'", where=uri.text, hint=hint)
    if uri.query.keys() & {"pretrained", "checkpoint_path"}:
        raise UnknownTarget("a target has no weights of its own", where=uri.text, hint="leave them out")

    def make() -> Module:
        built: Module = timm.create_model(uri.body, pretrained=False, **uri.query)
        return built

    return module_target(uri.text, make, lambda module: _input_shape(module, uri))


def _input_shape(module: Module, uri: TargetURI) -> Shape | None:
    """Read [channels, height, width] off the model's own configuration."""
    channels, *size = getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    asked = uri.query.get("img_size", size)
    shape = (uri.query.get("in_chans", channels), *([asked, asked] if isinstance(asked, int) else asked))
    return shape if len(shape) == 3 and all(isinstance(extent, int) for extent in shape) else None
