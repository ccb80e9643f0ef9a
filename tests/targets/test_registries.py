"""`torchvision:` and `timm:`: real models, built for their shapes only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torchvision import models

from ckptfix import target
from ckptfix.errors import TargetBuildError, UnknownTarget
from ckptfix.tensors import DType

ROOT = Path(__file__).parents[2]


def assert_wants(uri: str, module: torch.nn.Module) -> None:
    """The manifest is the module's state dict, in order, with owners and kinds."""
    manifest = target(uri).manifest
    expected = module.state_dict()
    assert list(manifest) == list(expected)
    parameters = {key for key, _ in module.named_parameters(remove_duplicate=False)}
    for key, tensor in expected.items():
        assert manifest[key].shape == tuple(tensor.shape), key
        assert manifest[key].dtype.torch_name == str(tensor.dtype).removeprefix("torch."), key
        assert manifest.kinds[key] == ("param" if key in parameters else "buffer"), key
        assert manifest.owners[key] == type(module.get_submodule(key.rpartition(".")[0])).__name__, key


def test_torchvision() -> None:
    assert_wants("torchvision:mobilenet_v2?num_classes=5", models.mobilenet_v2(num_classes=5))


def test_timm() -> None:
    assert_wants("timm:resnet18?num_classes=7&in_chans=1", timm.create_model("resnet18", num_classes=7, in_chans=1))


def test_a_target_of_many_tensors_costs_no_memory() -> None:
    found = target("timm:vit_giant_patch14_clip_224")
    assert found.manifest.nbytes > 4 * 10**9
    assert found.notes == ()


@pytest.mark.parametrize(
    ("uri", "shape"),
    [
        ("torchvision:mobilenet_v2", (3, 224, 224)),
        ("torchvision:vit_b_16?image_size=384", (3, 384, 384)),
        ("torchvision:inception_v3?init_weights=false", (3, 299, 299)),
        ("torchvision:fasterrcnn_resnet50_fpn", None),
        ("timm:resnet18?in_chans=1", (1, 224, 224)),
        ("timm:vit_tiny_patch16_224?img_size=64", (3, 64, 64)),
    ],
)
def test_input_shapes(uri: str, shape: tuple[int, ...] | None) -> None:
    assert target(uri).input_shape == shape


@pytest.mark.parametrize("uri", ["torchvision:resnet18?weights=DEFAULT", "timm:resnet18?pretrained=true"])
def test_weights_are_never_fetched(uri: str) -> None:
    with pytest.raises(UnknownTarget, match="a target has no weights of its own"):
        target(uri)


def test_nothing_is_downloaded() -> None:
    found = target("torchvision:deeplabv3_resnet50?num_classes=3")
    assert found.manifest["classifier.4.weight"].shape == (3, 256, 1, 1)


@pytest.mark.parametrize("uri", ["torchvision:mobilenet_v2?num_classes=3", "timm:resnet18?num_classes=3"])
def test_a_seed_decides_the_initial_values(uri: str) -> None:
    found = target(uri)
    before = torch.get_rng_state()
    first, again, other = (found.must_build(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_planning_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    target("timm:resnet18")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("torchvision:mobilnet_v2", "torchvision has no model 'mobilnet_v2' (did you mean mobilenet_v2, "),
        ("timm:resnet_18", "timm has no model 'resnet_18' (did you mean resnet18, "),
        ("torchvision:zzz", "torchvision has no model 'zzz' (torchvision.models.list_models() has the names)"),
        ("timm:zzzzzzzzzz", "timm has no model 'zzzzzzzzzz' (timm.list_models() has the names)"),
    ],
)
def test_unknown_models(uri: str, message: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        target(uri)
    assert str(caught.value).startswith(f"{uri}: {message}")


@pytest.mark.parametrize("uri", ["torchvision:mobilenet_v2?num_clases=5", "timm:resnet18?bogus=5"])
def test_options_that_the_constructor_refuses(uri: str) -> None:
    with pytest.raises(TargetBuildError, match=r"the constructor raised TypeError: .*\(check the options after '\?'\)"):
        target(uri)


@pytest.mark.parametrize("uri", ["torchvision:resnet18?num_classes=abc", "timm:resnet18?num_classes=abc"])
def test_a_number_that_is_none(uri: str) -> None:
    with pytest.raises(TargetBuildError, match=r"\(check the options after '\?': num_classes is the text 'abc'\)"):
        target(uri)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_is_named(package: str) -> None:
    args = ["check", str(ROOT / "fixtures" / "zip.pth"), f"{package}:x"]
    code = f"import sys; sys.modules[{package!r}] = None\nfrom ckptfix.__main__ import main\nmain({args!r})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 2
    assert found.stderr == f'error: {package}:x: {package} is not installed (pip install "ckptfix[models]")\n'


def test_every_dtype_of_a_module_has_a_name() -> None:
    module = torch.nn.Module()
    for number, dtype in enumerate((torch.bfloat16, torch.float8_e4m3fn, torch.uint16, torch.complex128, torch.bool)):
        module.register_buffer(f"b{number}", torch.zeros(2, dtype=dtype))
    assert [spec.dtype for spec in target(module).manifest.values()] == [
        DType.BF16,
        DType.F8_E4M3,
        DType.U16,
        DType.C128,
        DType.BOOL,
    ]


@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_options_may_be_spelled_as_python_spells_them(value: str) -> None:
    assert "cls_token" not in target(f"timm:vit_tiny_patch16_224?class_token={value}&global_pool=avg").manifest
