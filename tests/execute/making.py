"""State dicts with everything a file may hold, and their bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ckptfix import adapt
from ckptfix.api import Adapted

BOTH = ("out.safetensors", "out.pth")

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
)


def pattern(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Any bytes that are values of the dtype."""
    count = torch.empty(shape).numel()
    if dtype == torch.bool:
        return (torch.arange(count) % 3 == 0).reshape(shape)
    width = torch.empty(0, dtype=dtype).element_size()
    raw = (torch.arange(count * width) * 37 % 251).to(torch.uint8)
    return raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert found[key].shape == tensor.shape, key
        assert bytes_of(found[key]) == bytes_of(tensor), key


def convert(tensors: dict[str, Tensor], out: Path, **options: object) -> Adapted:
    """Save with torch and write again with ckptfix."""
    source = out.with_name("source.pth")
    torch.save(tensors, source)
    return adapt(source, source, out, **options)
