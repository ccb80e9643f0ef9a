"""A folder with a small net to build, its checkpoint, and the main job done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptfix import adapt

from ..weights import mobilenet_v2
from .running import BUILD, FIVE, NEW_HEAD, save_net


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: net.py, net.pth of 2 classes, head.yaml."""
    (tmp_path / "net.py").write_text(BUILD)
    save_net(tmp_path / "net.pth")
    (tmp_path / "head.yaml").write_text(
        'ckptfix: 1\nrules:\n  - {op: drop, keys: "2.*"}\n  - {op: fill, keys: "2.*", value: target}\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def official() -> Path:
    return mobilenet_v2()


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, official: Path) -> Path:
    """The official MobileNetV2 with a new head of 5 classes, adapted once."""
    out = tmp_path_factory.mktemp("main_job") / "adapted.safetensors"
    adapt(official, FIVE, out, NEW_HEAD)
    return out
