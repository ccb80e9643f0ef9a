"""`shapes:`, live modules, and how a text is told from a target."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ckptfix import adapt, check, plan, target
from ckptfix.errors import AmbiguousSource, TargetBuildError, UnknownTarget
from ckptfix.targets import is_target, schemes
from ckptfix.tensors import DType, TensorSpec

TENSORS = {"w": torch.zeros(2, 3), "n": torch.zeros((), dtype=torch.int64)}
SPECS = {"w": TensorSpec((2, 3), DType.F32), "n": TensorSpec((), DType.I64)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(TENSORS, "net.pth")
    torch.save({"model": TENSORS, "ema": dict(TENSORS)}, "nested.pth")
    save_file(TENSORS, "net.safetensors")
    document = {"schema_version": 1, "tensors": {key: spec.to_json() for key, spec in SPECS.items()}}
    Path("net.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.json", "nested.pth#ema"])
@pytest.mark.parametrize("prefix", ["", "shapes:"])
def test_any_file_gives_shapes(prefix: str, name: str) -> None:
    found = target(prefix + name)
    assert dict(found.manifest) == SPECS
    with pytest.raises(TargetBuildError, match="holds shapes only"):
        found.must_build(0)


def test_a_path_is_a_target() -> None:
    assert dict(target(Path("net.json")).manifest) == SPECS


def test_several_state_dicts_must_be_told_apart() -> None:
    with pytest.raises(AmbiguousSource):
        target("nested.pth")


def test_filling_from_a_target_of_shapes_leaves_the_keys_missing() -> None:
    made = plan(
        "net.pth", "net.json", "ckptfix: 1\nrules:\n  - {op: drop, keys: n}\n  - {op: fill, keys: n, value: target}\n"
    )
    assert made.exit_code == 1
    (row,) = made.report().missing
    assert (row.key, row.hint) == ("n", "net.json holds shapes only")


def lockfile(**changes: object) -> None:
    document = json.loads(Path("net.json").read_text())
    Path("net.json").write_text(json.dumps({**document, **changes}))


def test_a_lockfile_keeps_the_tree_and_the_ties() -> None:
    lockfile(modules={"": "Net()", "w": "X(1)"}, tied=[["w", "n"]])
    manifest = target("net.json").manifest
    assert manifest.modules == {"": "Net()", "w": "X(1)"}
    assert manifest.tied == (("w", "n"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version 2 is not 1"),
        ({"tensors": None}, "AttributeError"),
        ({"tensors": {"w": {"shape": [1]}}}, "KeyError: 'dtype'"),
        ({"tensors": {"w": {"shape": [1], "dtype": "F33"}}}, "'F33' is not a valid DType"),
        ({"tensors": {"w": {"shape": [-1], "dtype": "F32"}}}, "the shape of 'w' is [-1]"),
        ({"tensors": {"w": {"shape": [True], "dtype": "F32"}}}, "the shape of 'w' is [True]"),
    ],
)
def test_lockfiles_that_are_none(changes: dict[str, object], message: str) -> None:
    lockfile(**changes)
    with pytest.raises(UnknownTarget) as caught:
        target("net.json")
    assert "no lockfile of shapes: " in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1", "\ufeff", "[" * 100_000])
def test_text_that_is_no_json(text: str) -> None:
    Path("net.json").write_text(text)
    with pytest.raises(UnknownTarget, match="no JSON"):
        target("net.json")


@pytest.mark.parametrize("name", ["none.json", "none.pth", "none.pth#ema"])
def test_no_such_file(name: str) -> None:
    with pytest.raises(UnknownTarget, match="no such file"):
        target(name)


def test_schemes() -> None:
    assert {"py", "shapes", "timm", "torchvision"} <= set(schemes())
    assert [is_target(text) for text in ("timm:x", "tim:x", "net.pth", "C:net.pth", "a/b:c", "x")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    Path("odd:name.pth").write_bytes(Path("net.pth").read_bytes())
    assert not is_target("odd:name.pth") and not is_target("odd:name.pth#ema")
    assert dict(target("odd:name.pth").manifest) == SPECS


@pytest.mark.parametrize(
    ("text", "hint"),
    [("torchvison:resnet18", "did you mean 'torchvision:'?"), ("onnx:file", "known: ")],
)
def test_unknown_schemes(text: str, hint: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        target(text)
    assert f"unknown scheme '{text.partition(':')[0]}' ({hint}" in str(caught.value)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.wte.weight
        self.again = self.head
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


def test_a_live_module_with_ties() -> None:
    net = Tied()
    found = target(net)
    assert list(found.manifest) == list(net.state_dict())
    assert set(map(frozenset, found.manifest.tied)) == {
        frozenset({"wte.weight", "head.weight", "again.weight"}),
        frozenset({"head.bias", "again.bias"}),
    }
    assert found.manifest.kinds["seen"] == "buffer"
    copied = found.must_build(0)
    assert copied is not net and torch.equal(copied.wte.weight, net.wte.weight)
    torch.save(net.state_dict(), "tied.pth")
    assert check("tied.pth", net).compatible


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_live_module_whose_weight_was_computed_in_a_forward_pass(
    norm: Callable[[nn.Module], nn.Module],
) -> None:
    net = nn.Sequential(norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    net(torch.ones(5, 3))
    assert not net[0].weight.is_leaf
    copied = target(net).must_build(0).eval()
    assert torch.equal(copied(torch.ones(5, 3)), net.eval()(torch.ones(5, 3)))
    torch.save(net.state_dict(), "normed.pth")
    recipe = {"ckptfix": 1, "rules": [{"op": "drop", "keys": "1.*"}, {"op": "fill", "keys": "1.*", "value": "target"}]}
    adapt("normed.pth", net, "out.safetensors", recipe)
    assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in load_file("out.safetensors").items())


class Guarded(nn.Linear):
    """A module that holds a lock, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.lock = Lock()


def test_a_live_module_that_cannot_be_copied() -> None:
    found = target(Guarded())
    message = r"^Guarded: the module cannot be copied: TypeError: .*lock.* \(name its factory instead, as py:"
    with pytest.raises(TargetBuildError, match=message):
        found.must_build(0)
