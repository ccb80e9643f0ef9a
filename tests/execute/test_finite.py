"""NaN and infinity are counted in what is computed, and refused where a rule makes them of finite numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ckptfix import adapt, load_into
from ckptfix.api import Adapted
from ckptfix.cli.main import run
from ckptfix.errors import NonFinite
from ckptfix.execute.finite import Count, count_in

INF, NAN = math.inf, math.nan


def apply(folder: Path, rule: str, want: Tensor, **have: Tensor) -> Adapted:
    """Make a tensor `w` like `want` by one rule."""
    torch.save(have, folder / "source.pth")
    torch.save({"w": want}, folder / "want.pth")
    (folder / "recipe.yaml").write_text(f"ckptfix: 1\nrules:\n  - {rule}\n  - {{op: drop, keys: v, optional: true}}\n")
    return adapt(folder / "source.pth", folder / "want.pth", folder / "out.safetensors", folder / "recipe.yaml")


@pytest.mark.parametrize(
    ("rule", "have", "want", "text"),
    [
        ("{op: cast, keys: w, dtype: F16}", [1e6, 1.0], torch.float16, "1 infinity"),
        ("{op: cast, keys: w, dtype: F16}", [1e6, -1e6, NAN], torch.float16, "2 infinities"),
        ("{op: cast, keys: w, dtype: F8_E5M2}", [1e6, 1.0], torch.float8_e5m2, "1 infinity"),
    ],
)
def test_a_cast_that_overflows(rule: str, have: list[float], want: torch.dtype, text: str, tmp_path: Path) -> None:
    with pytest.raises(NonFinite) as caught:
        apply(tmp_path, rule, torch.zeros(len(have), dtype=want), w=torch.tensor(have))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'recipe.yaml'}:3: cast: 'w' would get {text} that its source does not have")
    assert "BF16" in message and caught.value.exit_code == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_a_sum_that_overflows(tmp_path: Path) -> None:
    large = torch.full((2, 3, 1, 1), 60000.0, dtype=torch.float16)
    rule = '{op: resize, keys: w, layout: "o i h w", axes: {i: 1}, mode: sum}'
    with pytest.raises(NonFinite, match="'w' would get 2 infinities"):
        apply(tmp_path, rule, torch.zeros(2, 1, 1, 1, dtype=torch.float16), w=large)


def test_what_the_source_has_may_stay_and_spread(tmp_path: Path) -> None:
    source = torch.ones(1, 1, 4, 4)
    source[0, 0, 0, 0] = INF
    found = apply(
        tmp_path,
        '{op: resize, keys: w, layout: "o i h w", axes: [h, w], mode: bilinear}',
        torch.zeros(1, 1, 8, 8),
        w=source,
    )
    out = load_file(tmp_path / "out.safetensors")["w"]
    assert found.read == Count(0, 1)
    assert found.made == Count(int(out.isnan().sum()), int(out.isinf().sum())) and found.made


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_what_a_rule_names_is_meant(value: str, tmp_path: Path) -> None:
    found = apply(tmp_path, f"{{op: fill, keys: w, value: {value}}}", torch.zeros(3), v=torch.zeros(1))
    assert not load_file(tmp_path / "out.safetensors")["w"].isfinite().any()
    assert found.made.nan + found.made.infinite == 3


def test_what_is_only_moved_is_not_looked_at(tmp_path: Path) -> None:
    found = apply(tmp_path, "{op: rename, map: {v: w}}", torch.zeros(2), v=torch.tensor([NAN, INF]))
    assert (found.read, found.made) == (Count(), Count())
    assert load_file(tmp_path / "out.safetensors")["w"].tolist()[1] == INF


def test_the_cast_of_the_whole_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": torch.tensor([1e6]), "v": torch.tensor([INF, NAN, 1.0])}, tmp_path / "source.pth")
    args = ["adapt", str(tmp_path / "source.pth"), str(tmp_path / "source.pth"), "-o", str(tmp_path / "out.pth")]
    assert run([*args, "--dtype", "F16"]) == 1
    assert "error: dtype F16: 'w' would get 1 infinity" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()
    assert run([*args, "--dtype", "BF16", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    one_of_each = {"nan": 1, "infinite": 1}
    assert document["nonfinite"] == {"read": one_of_each, "made": one_of_each}
    assert run([*args, "--dtype", "BF16", "--force"]) == 0
    assert "not finite: 1 NaN and 1 infinity in what was computed with, 1 NaN" in capsys.readouterr().out


def test_a_live_module_keeps_its_values(tmp_path: Path) -> None:
    module = nn.Linear(1, 1).half()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    torch.save({"weight": torch.tensor([[1e6]]), "bias": torch.ones(1)}, tmp_path / "source.pth")
    with pytest.raises(NonFinite, match="'weight' would get 1 infinity"):
        load_into(
            module, tmp_path / "source.pth", {"ckptfix": 1, "rules": [{"op": "cast", "keys": "*", "dtype": "F16"}]}
        )
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


FLOATING = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("dtype", FLOATING)
def test_every_dtype_is_counted(dtype: torch.dtype) -> None:
    numbers = torch.ones(3, (1 << 20) // 2)  # in two pieces
    numbers[0, 0], numbers[1, 7], numbers[2, -1], numbers[2, 5] = NAN, INF, -INF, NAN
    assert count_in(numbers.to(dtype)) == Count(2, 2)
    assert count_in(numbers.to(dtype).T) == Count(2, 2)
    assert count_in(torch.tensor(INF).to(dtype)) == Count(0, 1)
    assert count_in(torch.empty(0, 3).to(dtype)) == Count()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e8m0fnu])
def test_float8_without_infinity(dtype: torch.dtype) -> None:
    assert count_in(torch.tensor([1.0, NAN]).to(dtype)) == Count(1, 0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_finite(dtype: torch.dtype) -> None:
    assert not count_in(torch.ones(3).to(dtype))
