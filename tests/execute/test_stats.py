"""Statistics, held against torch's of the same tensor."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ckptfix.execute.numbers import decode
from ckptfix.execute.stats import Stats, measure
from ckptfix.formats import open_checkpoint
from ckptfix.tensors import DType
from tests.cli.running import call
from tests.formats.making import safetensors_bytes


@pytest.mark.parametrize("name", [str(dtype) for dtype in DType if dtype.bits == 8 and dtype.kind == "float"])
def test_every_code_of_an_eighth_is_the_number_that_torch_reads(name: str) -> None:
    expected = torch.arange(256, dtype=torch.uint8).view(getattr(torch, DType(name).torch_name)).to(torch.float64)
    np.testing.assert_array_equal(decode(bytes(range(256)), DType(name)), expected.numpy())


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64),
        *(torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    ],
)
def test_the_same_numbers_as_torch(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensor = (torch.randn(700_001, dtype=torch.float64) * 20).abs().to(dtype)
    if dtype.is_floating_point:
        tensor *= torch.randn(700_001).sign().to(dtype)
        tensor[[5, 600_000, 600_001]] = torch.tensor([math.nan, math.inf, -math.inf]).to(dtype)
    torch.save({"w": tensor}, tmp_path / "x.pth")
    (found,) = dict(measure(open_checkpoint(tmp_path / "x.pth"), ["w"])).values()
    numbers = (tensor.abs() if tensor.is_complex() else tensor).to(torch.float64)
    finite = numbers[numbers.isfinite()]
    assert found == Stats(
        least=float(finite.min()),
        largest=float(finite.max()),
        mean=pytest.approx(float(finite.mean()), rel=1e-6),
        deviation=pytest.approx(float(finite.std(correction=0)), rel=1e-6),
        zeros=int((finite == 0).sum()),
        nan=int(numbers.isnan().sum()),
        infinite=int(numbers.isinf().sum()),
    )


def test_deviations_of_the_largest_numbers_do_not_overflow(tmp_path: Path) -> None:
    half = torch.full((300_000,), 1.7e308, dtype=torch.float64)
    torch.save({"w": torch.cat([half, -half])}, tmp_path / "x.pth")
    (found,) = dict(measure(open_checkpoint(tmp_path / "x.pth"), ["w"])).values()
    assert found.deviation == pytest.approx(1.7e308)
    assert abs(found.mean) < 1e295


def test_less_than_a_byte_is_said_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = {
        "four": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]},
        "w": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(header, b"\1\2" + np.float32(2).tobytes()))
    assert call("inspect", path, "--stats", "--json") == 0
    out, err = capsys.readouterr()
    assert err == "note: no statistics of F4, whose elements are less than a byte: 1 tensor\n"
    rows = json.loads(out)["tensors"]
    assert rows["w"]["mean"] == 2 and rows["four"]["mean"] is None and rows["four"]["zeros"] is None
    assert rows["four"].keys() == rows["w"].keys()
    assert call("inspect", path, "--stats") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["four", "F4", "[4]", *"-------"]


def test_torch_is_not_imported_and_a_large_tensor_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(40_000_000)}, path)
    code = (
        "import resource, sys; from ckptfix.cli.main import run; assert run(sys.argv[1:]) == 0; "
        "assert 'torch' not in sys.modules; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    kilobytes = []
    for arguments in (["inspect", path], ["inspect", path, "--stats"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        kilobytes.append(int(ended.stderr))
    assert kilobytes[1] < kilobytes[0] + 100_000
