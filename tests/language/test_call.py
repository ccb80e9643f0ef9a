"""`call`: each shipped function against torch's own, and functions of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, weight_norm

from ckptfix import adapt, load_recipe, verify
from ckptfix.calls import list_functions
from ckptfix.errors import CkptfixError
from ckptfix.execute.evaluate import evaluate
from ckptfix.planning import make_plan
from ckptfix.targets.base import spec_of
from ckptfix.tensors import Manifest


def call(rule: dict[str, Any], have: dict[str, Tensor]) -> dict[str, Tensor]:
    specs = Manifest({key: spec_of(value) for key, value in have.items()})
    plan = make_plan(load_recipe({"ckptfix": 1, "rules": [{"op": "call", **rule}]}), specs, Manifest({}))
    plan.raise_for_errors()
    made = {key: evaluate(row.expr, have.__getitem__, lambda seed: {}) for key, row in plan.rows.items()}
    assert all(spec_of(tensor) == plan.rows[key].expr.spec for key, tensor in made.items())
    return made


def test_the_shipped_functions() -> None:
    shipped = ["dequantise_blocks", "fold_batch_norm", "fold_weight_norm", "merge_lora", "unfold_weight_norm"]
    assert list_functions() == shipped


def test_merge_lora_gives_the_output_of_base_and_adapter() -> None:
    torch.manual_seed(0)
    base, down, up = nn.Linear(5, 7), nn.Linear(5, 2, bias=False), nn.Linear(2, 7, bias=False)
    have = {"q.weight": base.weight.detach(), "q.A": down.weight.detach(), "q.B": up.weight.detach()}
    rule = {"fn": "merge_lora", "from": ["{m}.weight", "{m}.A", "{m}.B"], "to": "{m}.weight", "args": {"scale": 0.5}}
    x = torch.randn(3, 5)
    merged = torch.nn.functional.linear(x, call(rule, have)["q.weight"], base.bias)
    assert torch.allclose(merged, base(x) + 0.5 * up(down(x)), atol=1e-6)


@pytest.mark.parametrize("dim", [0, 1])
def test_weight_norm_there_and_back(dim: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(3, 5, 4)
    plain = conv.weight.detach().clone()
    normed = weight_norm(conv, dim=dim)
    have = {"c.weight_g": normed.weight_g.detach() * 1.5, "c.weight_v": normed.weight_v.detach()}
    fold = {
        "fn": "fold_weight_norm",
        "from": ["{m}.weight_g", "{m}.weight_v"],
        "to": "{m}.weight",
        "args": {"dim": dim},
    }
    assert torch.allclose(call(fold, have)["c.weight"], plain * 1.5, atol=1e-6)
    unfold = {
        "fn": "unfold_weight_norm",
        "from": "{m}.weight",
        "to": ["{m}.weight_g", "{m}.weight_v"],
        "args": {"dim": dim},
    }
    made = call(unfold, {"c.weight": plain})
    assert torch.allclose(made["c.weight_g"], normed.weight_g, atol=1e-6)
    assert torch.equal(made["c.weight_v"], plain)


@pytest.mark.parametrize("bias", [True, False])
def test_fold_batch_norm(bias: bool) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3, bias=bias).eval(), nn.BatchNorm2d(5, eps=1e-3).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 2.0)
    have = {f"c.{key}": value for key, value in conv.state_dict().items()}
    have |= {f"n.{key}": value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    keys = ["c.weight", *(["c.bias"] if bias else []), "n.weight", "n.bias", "n.running_mean", "n.running_var"]
    rule = {"fn": "fold_batch_norm", "from": keys, "to": ["c.weight", "c.bias"], "args": {"eps": 1e-3}}
    made, fused = call(rule, have), fuse_conv_bn_eval(conv, norm)
    assert torch.allclose(made["c.weight"], fused.weight, atol=1e-6)
    assert torch.allclose(made["c.bias"], fused.bias, atol=1e-6)


def test_dequantise_blocks() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 7).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2) + 0.5
    rule = {
        "fn": "dequantise_blocks",
        "from": ["{m}.weight", "{m}.weight_scale_inv"],
        "to": "{m}.weight",
        "args": {"rows": 2, "columns": 4, "dtype": "F32"},
    }
    made = call(rule, {"q.weight": weight, "q.weight_scale_inv": scale})["q.weight"]
    for row in range(5):
        for column in range(7):
            assert made[row, column] == weight.float()[row, column] * scale[row // 2, column // 4]


@pytest.mark.parametrize(
    ("rule", "shapes", "message"),
    [
        ({"fn": "merge_lora", "keys": "a"}, {"a": [2]}, "merge_lora takes weight, lora_A and lora_B, not 1 tensors"),
        ({"fn": "merge_lora", "from": "a", "to": "b", "args": {"alpha": 1}}, {"a": [2]}, "no argument 'alpha'"),
        (
            {"fn": "fold_weight_norm", "from": ["a", "b"], "to": "c", "args": {"dim": "x"}},
            {"a": [1], "b": [1]},
            "'x' is",
        ),
        ({"fn": "unfold_weight_norm", "keys": "a"}, {"a": [2, 3]}, "makes 2 tensors, 1 keys are given"),
        ({"fn": "unfold_weight_norm", "from": "a", "to": ["{m}", "b"]}, {"a": [2, 3]}, "'{m}' uses 'm'"),
        ({"fn": "fold_batch_norm", "from": ["a", "b"], "to": ["a", "b"]}, {"a": [2, 3], "b": [2]}, "takes weight, its"),
        ({"fn": "fold", "keys": "a"}, {"a": [2]}, "no function 'fold' is installed"),
        (
            {"fn": "merge_lora", "from": ["{i}.a", "{i}.b", "{i}.c"], "to": "{i}"},
            {"0.a": [1], "0.b": [1]},
            "'{i}.c' matches",
        ),
    ],
)
def test_a_wrong_call_says_what_is_wrong(rule: dict[str, Any], shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(CkptfixError) as caught:
        call(rule, {key: torch.zeros(shape) for key, shape in shapes.items()})
    assert message in str(caught.value)


def test_through_a_file_and_its_proof(tmp_path: Path) -> None:
    conv = weight_norm(nn.Conv1d(2, 3, 1))
    torch.save({f"m.{key}": value for key, value in conv.state_dict().items()}, tmp_path / "old.pth")
    torch.save({"m.weight": torch.zeros(3, 2, 1), "m.bias": torch.zeros(3)}, tmp_path / "new.pth")
    rule = '{op: call, fn: fold_weight_norm, from: ["{m}.weight_g", "{m}.weight_v"], to: "{m}.weight"}'
    recipe = f"ckptfix: 1\nrules:\n  - {rule}\n"
    target = f"shapes:{tmp_path / 'new.pth'}"
    out = adapt(tmp_path / "old.pth", target, tmp_path / "out.safetensors", recipe).path
    assert verify(out, target, source=tmp_path / "old.pth", recipe=recipe).values is True


PLUGIN = """
from ckptfix.errors import RuleError
from ckptfix.tensors import TensorSpec

def infer(specs, args):
    return [TensorSpec(specs[0].shape, specs[0].dtype)]

def compute(tensors, args):
    return [-tensors[0]]
"""


def test_another_package_brings_a_function(tmp_path: Path) -> None:
    (tmp_path / "negating.py").write_text(PLUGIN)
    info = tmp_path / "negating-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: negating\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ckptfix.rules]\nnegate = negating\n")
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "r.yaml").write_text("ckptfix: 1\nrules:\n  - {op: call, fn: negate, keys: a}\n")
    done = subprocess.run(
        [sys.executable, "-m", "ckptfix", "adapt", "a.pth", "a.pth", "-r", "r.yaml", "-o", "b.pth"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "b.pth", weights_only=True)["a"].tolist() == [-1.0, -1.0]
