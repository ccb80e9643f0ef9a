"""Laws: what is written is read again, by ckptfix and by the formats' own libraries, to the byte."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from ckptfix import adapt, verify
from ckptfix.execute.evaluate import evaluate, from_bytes
from ckptfix.expr import Block, Cast, Constant, Crop, Normal, Pad, Read, Resize
from ckptfix.formats import Reader, open_checkpoint
from ckptfix.proof.recompute import recompute
from ckptfix.tensors import DType, TensorSpec

from .making import BOTH, DTYPES, assert_same, pattern

KEYS = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda key: key != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors of any dtype, some of them views of one storage, some turned."""
    tensors: dict[str, Tensor] = {}
    for key in draw(st.lists(KEYS, min_size=1, max_size=6, unique=True)):
        kind = draw(st.sampled_from(("new", "new", "same", "turned", "part")))
        last = next(reversed(tensors.values()), None)
        if kind == "new" or last is None:
            tensors[key] = pattern(draw(st.sampled_from(DTYPES)), draw(SHAPES))
        elif kind == "same":
            tensors[key] = last
        elif kind == "turned":
            tensors[key] = last.movedim(0, -1) if last.dim() > 1 else last
        else:
            tensors[key] = last[1:] if last.dim() else last
    return tensors


def read(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(f"{path}#.")
    with Reader() as reader:
        return {key: from_bytes(reader.read(ref), ref.spec) for key, ref in checkpoint.tensors.items()}


@settings(max_examples=60, deadline=None)
@given(state_dicts(), st.sampled_from(BOTH))
def test_write_then_read(tensors: dict[str, Tensor], name: str) -> None:
    if name.endswith("safetensors"):
        tensors = {key: tensor for key, tensor in tensors.items() if tensor.dtype != torch.complex128}
    if not tensors:
        return
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "source.pth"), Path(folder, name)
        torch.save(tensors, source)
        adapt(source, source, out)
        assert_same(read(out), tensors)
        assert_same(load_file(out) if name.endswith("safetensors") else torch.load(out, weights_only=True), tensors)
        proved = verify(out, out, source=source)
        assert proved.ok and proved.values is True
        assert verify(out, out).values is True


FLOATS = (DType.F32, DType.F16, DType.BF16, DType.F64)
EXTENTS = st.integers(1, 4)


@st.composite
def resized(draw: st.DrawFn) -> Resize | Crop | Pad:
    """Change one or two axes of [before + h·w + after, c] in any of the three ways."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    height, width, channels = draw(EXTENTS), draw(EXTENTS), draw(EXTENTS)
    source = Read("x", TensorSpec((before + height * width + after, channels), draw(st.sampled_from(FLOATS))))
    kind = draw(st.sampled_from(("resize", "crop", "pad", "pad mean", "pad target")))
    low, high = {"crop": (1, 0), "resize": (1, 6)}.get(kind, (0, 6))
    sizes = [draw(st.integers(low or old, high or old)) for old in (height, width)]
    sizes = [max(new, old) if kind.startswith("pad") else new for new, old in zip(sizes, (height, width), strict=True)]
    if kind == "pad mean":
        sizes[1] = width
    axes = (0,) if kind == "pad mean" else (0, 1)
    shape = (sizes[0] * sizes[1], channels)
    block = Block(0, before, before + height * width, (height, width, channels), axes, tuple(sizes[: len(axes)]), shape)
    spec = TensorSpec((before + shape[0] + after, channels), source.spec.dtype)
    match kind:
        case "crop":
            return Crop(source, spec, block)
        case "pad":
            return Pad(source, spec, block, 0.5)
        case "pad mean":
            return Pad(source, spec, block, "mean")
        case "pad target":
            return Pad(source, spec, block, 0.0, Constant(spec, 7.0))
    mode = draw(st.sampled_from(("bicubic", "bilinear", "nearest")))
    corners = mode != "nearest" and draw(st.booleans())
    return Resize(source, spec, block, mode, mode != "nearest" and not corners and draw(st.booleans()), corners)


@settings(max_examples=200, deadline=None)
@given(resized(), st.integers(0, 9))
def test_the_planned_spec_is_the_computed_one_and_both_paths_agree(expr: Resize | Crop | Pad, seed: int) -> None:
    spec = expr.source.spec
    dtype = getattr(torch, spec.dtype.torch_name or "")
    tensor = torch.randn(spec.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    whole = Cast(expr, DType.F32)
    made = evaluate(whole, lambda key: tensor, lambda seed: {})
    assert (tuple(made.shape), made.dtype) == (expr.spec.shape, torch.float32)
    again = recompute(whole, {"x": tensor}, lambda seed: {})
    assert torch.equal(made, again)


def test_the_input_is_never_changed() -> None:
    tensor = torch.arange(6.0).reshape(6, 1)
    read = Read("x", TensorSpec((6, 1), DType.F32))
    block = Block(0, 1, 5, (4, 1), (0,), (6,), (6, 1))
    spec = TensorSpec((8, 1), DType.F32)
    before = tensor.clone()
    made = evaluate(Pad(read, spec, block, 0.0, Constant(spec, 9.0)), lambda key: tensor, lambda seed: {})
    assert made.flatten().tolist() == [0, 1, 2, 3, 4, 9, 9, 5]
    assert torch.equal(tensor, before)


def test_random_fills_do_not_depend_on_each_other() -> None:
    spec = TensorSpec((1000,), DType.F32)
    state = torch.get_rng_state()
    draw = [
        evaluate(Normal(spec, key, 0.5, seed), lambda key: spec, lambda seed: {}) for key in "ab" for seed in (0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(numbers.tolist()) for numbers in draw}) == 4
    assert abs(float(draw[0].std()) - 0.5) < 0.05
    assert torch.equal(draw[0], evaluate(Normal(spec, "a", 0.5, 0), lambda key: spec, lambda seed: {}))
