"""The fields of a config: override them by name, and list their values."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ckptfix.errors import TargetBuildError, UnknownTarget
from ckptfix.targets.base import TargetURI

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LABELS = ("num_labels", "id2label", "label2id")
"""One fact in three spellings."""
_CHOSEN_OTHERWISE = ("model_type", "architectures", "transformers_version", "auto_map")


def make_config(
    kind: type[PreTrainedConfig], values: Mapping[str, Any], overrides: Mapping[str, Any], uri: TargetURI
) -> PreTrainedConfig:
    """Make a config of JSON values, with some replaced; a dot in a name leads into a nested config.

    Raises UnknownTarget with the nearest names for a field that the config does not have, TargetBuildError where its
    class refuses a value.
    """
    config = _construct(kind, values, uri)
    if not overrides:
        return config
    changed = dict(values)
    for name, value in overrides.items():
        _check_field(config, name, uri)
        changed = _replace(config, changed, name, value)
    return _construct(kind, changed, uri)


def _construct(kind: type[PreTrainedConfig], values: Mapping[str, Any], uri: TargetURI) -> PreTrainedConfig:
    try:
        return kind.from_dict({name: value for name, value in values.items() if name != "model_type"})
    except Exception as error:  # each of transformers' configs checks its values in its own way
        raise TargetBuildError(
            f"{kind.__name__} refuses the config: {' '.join(f'{type(error).__name__}: {error}'.split())}",
            where=uri.text,
            hint="check the values, also those after '?'",
        ) from error


def _check_field(config: PreTrainedConfig, name: str, uri: TargetURI) -> None:
    names = _fields(config)
    if name in names:
        return
    close = get_close_matches(name, sorted(names), 3, 0.5)
    raise UnknownTarget(
        f"{type(config).__name__} has no field '{name}'",
        where=uri.text,
        hint=f"did you mean {', '.join(close)}?" if close else "fields are those of the config's class and file",
    )


def _fields(config: PreTrainedConfig) -> set[str]:
    own = {*config.to_dict(), *config.attribute_map, *_LABELS, "dtype", "torch_dtype"} - {*_CHOSEN_OTHERWISE}
    nested = {f"{name}.{field}" for name, part in _parts(config).items() for field in _fields(part)}
    return {name for name in own if not name.startswith("_")} | nested


def _replace(config: PreTrainedConfig, values: Mapping[str, Any], name: str, value: object) -> dict[str, Any]:
    """Give the values with one replaced, under whichever of its names the config's class reads."""
    first, _, rest = name.partition(".")
    parts = _parts(config)
    if rest and first in parts:
        inner = values.get(first)
        inner = inner if isinstance(inner, dict) else parts[first].to_dict()
        return {**values, first: _replace(parts[first], inner, rest, value)}
    aliases = config.attribute_map
    same = {name, aliases.get(name, name), *(alias for alias, field in aliases.items() if field == name)}
    if name in _LABELS:
        same |= {*_LABELS}
    if name in ("dtype", "torch_dtype"):
        same |= {"dtype", "torch_dtype"}
    kept = {field: old for field, old in values.items() if field not in same}
    return {**kept, aliases.get(name, name): value}


def list_values(config: PreTrainedConfig) -> dict[str, object]:
    """List every value that is set, by each of its names, and those of nested configs as `vision_config.hidden_act`."""
    values = config.to_dict()
    named = values | {alias: values.get(field) for alias, field in config.attribute_map.items()}
    if config.id2label is not None:
        named["num_labels"] = config.num_labels
    found = {name: value for name, value in named.items() if value is not None and not name.startswith("_")}
    for name, part in _parts(config).items():
        found |= {f"{name}.{field}": value for field, value in list_values(part).items()}
    return found


def _parts(config: PreTrainedConfig) -> dict[str, PreTrainedConfig]:
    from transformers import PreTrainedConfig

    return {name: value for name, value in vars(config).items() if isinstance(value, PreTrainedConfig)}
