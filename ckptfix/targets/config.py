"""`config:./config.json?class=AutoModelForImageClassification&num_labels=5`: transformers' model of a config file."""

from __future__ import annotations

from pathlib import Path

from ckptfix.errors import UnknownTarget
from ckptfix.targets.base import Target, TargetURI
from ckptfix.targets.transformers_config import config_target


def resolve(uri: TargetURI) -> Target:
    """Build what the file describes. Raises what `config_target` raises."""
    if not uri.body:
        raise UnknownTarget("no file is named", where=uri.text, hint="write config:./config.json")
    return config_target(uri, Path(uri.body), uri.query)
