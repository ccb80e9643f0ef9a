"""One server for all tests of a worker, with sound inputs to warm it up."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .harness import ROOT, Server

_FILES = ("zip.pth", "legacy.pth", "tiny.safetensors", "nested.pth#state_dict", "hostile.pth")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start it, and end it with the session."""
    sound = tmp_path_factory.mktemp("sound")
    (sound / "recipe.yaml").write_text('ckptfix: 1\nrules:\n  - {op: drop, keys: "**"}\n')
    requests = []
    for name in _FILES:
        path = str(ROOT / "fixtures" / name)
        requests += [["ckptfix", "inspect", path], ["ckptfix", "inspect", path, "--json"], ["read", path]]
        requests += [["ckptfix", "inspect", path, "--security"], ["ckptfix", "inspect", path, "--security", "--json"]]
    requests += [["ckptfix", "inspect", str(sound / "missing.pth")]]
    lockfile, recipe = str(ROOT / "fixtures" / "tiny.safetensors"), str(sound / "recipe.yaml")
    requests += [["ckptfix", "plan", str(ROOT / "fixtures" / "zip.pth"), f"shapes:{lockfile}", "-r", recipe]]
    (sound / "requests.json").write_text(json.dumps(requests))
    server = Server(sound)
    yield server
    server.close()
