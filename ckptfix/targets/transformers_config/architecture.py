"""Choose the classes of transformers, for the config and for the model, that settings and query name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ckptfix.errors import UnknownTarget
from ckptfix.targets.base import TargetURI
from ckptfix.targets.transformers_config.document import Settings
from ckptfix.targets.transformers_config.fields import make_config

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedConfig

_NO_MODEL = re.compile(r"(Config|Tokenizer|TokenizerFast|Processor|ProcessorFast|Extractor|Output)$")


class Architecture(Struct, frozen=True):
    """A config and what builds a model of it. `notes` are for the user's eyes."""

    config: PreTrainedConfig
    build: Callable[[PreTrainedConfig], Module]
    notes: tuple[str, ...]


def choose_architecture(
    settings: Settings, asked: object, overrides: Mapping[str, Any], uri: TargetURI
) -> Architecture:
    """Take the class that was asked for, else the first of `architectures`, else AutoModel.

    Raises UnknownTarget where transformers has no such class or model type, and where only remote code would have it.
    """
    named = settings.values.get("architectures") or ["AutoModel"]
    name = str(asked if asked is not None else named[0] if isinstance(named, list) else named)
    model = _model_class(name)
    kind = _config_class(settings, model if asked is not None or "model_type" not in settings.values else None, uri)
    if model is None:
        _refuse_remote_code(settings, f"transformers has no class '{name}'", "class=AutoModel", uri)
        raise UnknownTarget(f"transformers has no model class '{name}'", where=uri.text, hint=_nearest(name))
    config = make_config(kind, settings.values, overrides, uri)
    return _architecture(model, config, _notes(settings, name), uri)


@cache
def _names() -> frozenset[str]:
    """List the names of transformers. It makes the list anew each time that it is asked, slowly."""
    import transformers

    return frozenset(dir(transformers))


def _model_class(name: str) -> Any:  # an Auto class or a PreTrainedModel, which have no base in common
    import transformers

    found = getattr(transformers, name, None) if name in _names() else None
    is_model = isinstance(found, type) and (
        issubclass(found, transformers.PreTrainedModel) or getattr(found, "_model_mapping", None) is not None
    )
    return found if is_model else None


def _config_class(settings: Settings, model: Any, uri: TargetURI) -> type[PreTrainedConfig]:
    """Find the class by `model_type`; where transformers has no such type, the one that `model` is made from."""
    from transformers import CONFIG_MAPPING

    model_type = settings.values.get("model_type")
    if isinstance(model_type, str) and model_type in CONFIG_MAPPING:
        found: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
        return found
    own: type[PreTrainedConfig] | None = getattr(model, "config_class", None)
    if own is not None:
        return own
    if model_type is None:
        _refuse_remote_code(settings, "there is no 'model_type'", "class=NAME", uri)
        raise UnknownTarget("the config has no 'model_type'", where=uri.text, hint="name the model: ?class=NAME")
    _refuse_remote_code(settings, f"transformers has no model type '{model_type}'", "class=NAME", uri)
    close = get_close_matches(str(model_type), list(CONFIG_MAPPING), 3, 0.5)
    raise UnknownTarget(
        f"transformers has no model type '{model_type}'",
        where=uri.text,
        hint=f"did you mean {', '.join(close)}?" if close else "a newer transformers may have it",
    )


def _refuse_remote_code(settings: Settings, why: str, mend: str, uri: TargetURI) -> None:
    if settings.remote_code:
        raise UnknownTarget(
            f"{why}; the config names remote code ({settings.remote_code[0]}), which is never run",
            where=uri.text,
            hint=f"name a class of transformers' own with ?{mend}, or use py: with code of yours",
        )


def _nearest(name: str) -> str:
    names = [other for other in sorted(_names()) if other[:1].isupper() and not _NO_MODEL.search(other)]
    close = [other for other in get_close_matches(name, names, 6, 0.5) if _model_class(other) is not None][:3]
    return f"did you mean {', '.join(close)}?" if close else "name one of transformers' classes: ?class=AutoModel"


def _architecture(model: Any, config: PreTrainedConfig, notes: tuple[str, ...], uri: TargetURI) -> Architecture:
    mapping = getattr(model, "_model_mapping", None)
    if mapping is None:
        return Architecture(_config_for(model, config, uri), model._from_config, notes)
    if type(config) not in mapping:
        close = get_close_matches(model.__name__, [auto.__name__ for auto in _autos(config)], 3, 0.0)
        raise UnknownTarget(
            f"{model.__name__} has no model of type '{config.model_type}'",
            where=uri.text,
            hint=f"did you mean {', '.join(close)}?" if close else None,
        )
    return Architecture(config, lambda given: model.from_config(given, trust_remote_code=False), notes)


def _autos(config: PreTrainedConfig) -> list[Any]:  # Auto classes
    """List the Auto classes that have a model for the config."""
    autos = [_model_class(name) for name in sorted(_names()) if name.startswith("AutoModel")]
    return [auto for auto in autos if auto is not None and type(config) in auto._model_mapping]


def _is_paired(model: Any, config: PreTrainedConfig) -> bool:
    """Tell whether transformers makes the class of a config that it does not name, as LlamaForCausalLM of InternLM3."""
    pairs = [auto._model_mapping[type(config)] for auto in _autos(config)]
    return any(model in pair if isinstance(pair, list | tuple) else model is pair for pair in pairs)


def _config_for(model: Any, config: PreTrainedConfig, uri: TargetURI) -> PreTrainedConfig:
    """Give the config, or the nested one, that the class is made from: CLIPVisionModel takes CLIP's `vision_config`."""
    wanted: type[PreTrainedConfig] | None = model.config_class
    if wanted is None or isinstance(config, wanted):
        return config
    for part in vars(config).values():
        if isinstance(part, wanted):
            return part
    if _is_paired(model, config):
        return config
    raise UnknownTarget(
        f"{model.__name__} is made from a {wanted.__name__}, and this is a {type(config).__name__}", where=uri.text
    )


def _notes(settings: Settings, name: str) -> tuple[str, ...]:
    notes = []
    if settings.remote_code:
        remote = settings.remote_code[-1]
        notes.append(f"the config names remote code ({remote}), which is not run: this is transformers' own {name}")
    if settings.values.get("quantization_config"):
        notes.append("the config's quantisation is not applied: the target's tensors are those before it")
    return tuple(notes)
