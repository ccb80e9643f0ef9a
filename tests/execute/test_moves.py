"""What is only moved or cast passes in blocks: the same bytes as numpy and torch make of whole tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ckptfix.execute.cast import Casting
from ckptfix.execute.view import View, concatenate
from ckptfix.execute.work import work_of
from ckptfix.formats import Reader, Storage, TensorRef, open_checkpoint
from ckptfix.formats.base import contiguous_stride, ranges_of
from ckptfix.planning import make_plan
from ckptfix.recipe import load_recipe
from ckptfix.tensors import FLOATS, DType, Manifest, TensorSpec

Pair = tuple[View, "np.ndarray[Any, Any]"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a million numbers that are all different."""
    path = tmp_path_factory.mktemp("numbers") / "numbers"
    np.arange(1 << 20, dtype=np.int32).tofile(path)
    return path


def whole(path: Path, shape: tuple[int, ...], start: int = 0) -> Pair:
    """See the numbers from `start` on, and hold them."""
    spec = TensorSpec(shape, DType.I32)
    ref = TensorRef(spec, Storage(path, 0, 4 << 20, 4 << 20), start, contiguous_stride(shape))
    return View.of(ref), (np.arange(spec.numel, dtype=np.int32) + start).reshape(shape)


def data_of(view: View) -> bytes:
    with Reader() as reader:
        return b"".join(reader.chunks(view.ref()))


@st.composite
def _changed(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[Any, ...]]]:
    """Draw a shape, and changes that it can undergo."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    found = np.zeros(shape, np.int8)
    changes: list[tuple[Any, ...]] = []
    for _ in range(draw(st.integers(1, 6))):
        dim = draw(st.integers(0, found.ndim - 1)) if found.ndim else 0
        kind = draw(st.sampled_from(["narrow", "select", "permute", "reshape", "unsqueeze", "take", "twice", "expand"]))
        if found.ndim == 0 or found.ndim > 8 or found.size > 5000:
            kind = "reshape"
        match kind:
            case "narrow":
                start = draw(st.integers(0, found.shape[dim]))
                change: tuple[Any, ...] = (kind, dim, start, draw(st.integers(0, found.shape[dim] - start)))
            case "select":
                if not found.shape[dim]:
                    continue
                change = (kind, dim, draw(st.integers(0, found.shape[dim] - 1)))
            case "permute":
                change = (kind, tuple(draw(st.permutations(range(found.ndim)))))
            case "unsqueeze":
                change = (kind, draw(st.integers(0, found.ndim)))
            case "take":
                rows = st.integers(0, max(found.shape[dim] - 1, 0))
                change = (kind, dim, tuple(draw(st.lists(rows, max_size=7 if found.shape[dim] else 0))))
            case "expand":
                change = (kind, tuple(n if n != 1 else draw(st.integers(0, 3)) for n in found.shape))
            case "twice":
                change = (kind, dim)
            case _:
                change = (kind, draw(_shapes(found.size)))
        changes.append(change)
        found = on_array(found, change)
    return shape, changes


@st.composite
def _shapes(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Draw a shape of a number of elements."""
    shape: list[int] = []
    while size > 1 and len(shape) < 4:
        shape.append(draw(st.sampled_from([n for n in range(1, min(size, 60) + 1) if size % n == 0])))
        size //= shape[-1]
    return (*shape, size)


def on_array(found: np.ndarray[Any, Any], change: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    match change:
        case "narrow", dim, start, length:
            return found.take(range(start, start + length), dim)
        case "select", dim, index:
            return found.take(index, dim)
        case "permute", order:
            return found.transpose(order)
        case "unsqueeze", dim:
            return np.expand_dims(found, dim)
        case "take", dim, rows:
            return found.take(np.array(rows, np.int64), dim)
        case "expand", shape:
            return np.broadcast_to(found, shape)
        case "twice", dim:
            return np.concatenate([found, found], dim)
        case "reshape", shape:
            return found.reshape(shape)
    raise AssertionError(change)


def on_view(view: View, change: tuple[Any, ...]) -> View:
    match change:
        case "twice", dim:
            return concatenate([view, view], dim)
        case name, *arguments:
            result = getattr(view, name)(*arguments)
            assert isinstance(result, View)
            return result
    raise AssertionError(change)


@settings(max_examples=500)
@given(case=_changed())
def test_any_changes_are_those_of_numpy(numbers: Path, case: tuple[tuple[int, ...], list[tuple[Any, ...]]]) -> None:
    shape, changes = case
    view, array = whole(numbers, shape, start=5)
    for change in changes:
        view, array = on_view(view, change), on_array(array, change)
        assert view.shape == array.shape
    assert data_of(view) == array.tobytes()
    if (ranges := ranges_of(view.ref())) is not None:
        raw = numbers.read_bytes()
        assert b"".join(raw[found.start : found.start + found.nbytes] for found in ranges) == array.tobytes()


def test_a_split_along_the_first_axis_is_runs_of_the_file(numbers: Path) -> None:
    view, _ = whole(numbers, (30, 1000))
    [run] = ranges_of(view.narrow(0, 10, 10).ref()) or []
    assert (run.start, run.nbytes) == (40_000, 40_000)
    assert ranges_of(view.permute((1, 0)).ref()) is None
    stacked = concatenate([view.narrow(0, 20, 10).unsqueeze(0), view.narrow(0, 0, 10).unsqueeze(0)], 0)
    assert [found.start for found in ranges_of(stacked.ref()) or []] == [80_000, 0]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)])
def test_what_is_larger_than_is_held_is_turned_in_blocks(
    numbers: Path, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptfix.formats.base import strided

    monkeypatch.setattr(strided, "HELD", 1 << 16)
    view, array = whole(numbers, (64, 128, 128))
    assert data_of(view.permute(order)) == array.transpose(order).tobytes()
    assert data_of(view.narrow(1, 3, 70).permute(order)) == array[:, 3:73].transpose(order).tobytes()
    assert data_of(view.narrow(2, 7, 1).permute(order)) == array[:, :, 7:8].transpose(order).tobytes()


def test_fused_along_an_inner_axis(numbers: Path) -> None:
    left, right = whole(numbers, (200, 700)), whole(numbers, (200, 300), start=140_000)
    fused = concatenate([left[0], right[0], left[0]], 1)
    assert data_of(fused) == np.concatenate([left[1], right[1], left[1]], 1).tobytes()
    assert data_of(fused.permute((1, 0))) == np.concatenate([left[1], right[1], left[1]], 1).T.tobytes()


SPECIAL = [0.0, -0.0, 1.0, -1.5, 3.14159, 65504.0, -65520.0, 1e-8, 2.0**-24, 448.0, 464.0, 240.0, 1e-45, 0.0009765625]


@pytest.mark.parametrize("after", [dtype for dtype in FLOATS if dtype is not DType.F8_E8M0])
@pytest.mark.parametrize("before", FLOATS)
def test_casts_are_those_of_torch(before: DType, after: DType) -> None:
    torch_before, torch_after = (getattr(torch, str(dtype.torch_name)) for dtype in (before, after))
    drawn = torch.randn(4001, generator=torch.Generator().manual_seed(1))
    drawn *= torch.tensor([1e-3, 1.0, 30.0] * 1334)[:4001]
    source = torch.cat([drawn, torch.tensor(SPECIAL)]).to(torch_before)
    # torch clips to the largest number where a dtype has no infinity.
    limit = {DType.F8_E4M3: 448.0, DType.F8_E4M3FNUZ: 240.0, DType.F8_E5M2FNUZ: 57344.0}.get(after, float("inf"))
    source = source[source.to(torch.float64).abs() <= limit]
    found = cast(source, before, after)
    want = source.to(torch_after)
    assert torch.equal(found.to(torch.float64).nan_to_num(7), want.to(torch.float64).nan_to_num(7))


def cast(source: torch.Tensor, before: DType, after: DType) -> torch.Tensor:
    data = source.view(torch.uint8).numpy().tobytes()
    made = b"".join(map(bytes, Casting((before, after)).chunks(_torn(data))))
    return torch.frombuffer(bytearray(made), dtype=getattr(torch, str(after.torch_name)))


def _torn(data: bytes) -> Iterator[bytes]:
    """Cut bytes within numbers."""
    for start in range(0, len(data), 1001):
        yield data[start : start + 1001]


@pytest.mark.parametrize("after", [DType.F16, DType.F8_E4M3, DType.F8_E5M2, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ])
def test_what_does_not_fit_is_counted_and_never_clipped(after: DType) -> None:
    casting = Casting((DType.F32, after))
    b"".join(casting.chunks([np.array([1e6, 1.0, np.nan, -np.inf], np.float32).tobytes()]))
    assert (casting.read.nan, casting.read.infinite) == (1, 1)
    assert casting.made.nan + casting.made.infinite == 3


def test_a_plan_says_what_becomes_of_its_bytes(tmp_path: Path) -> None:
    save_file(
        {"a": torch.zeros(64, 1024), "b": torch.zeros(64, 8), "c": torch.zeros(3, 3), "d": torch.ones(5)},
        tmp_path / "x",
    )
    have = open_checkpoint(tmp_path / "x")
    rules = [
        {"op": "rearrange", "from": "a", "to": ["p", "q"], "layout": "(p+q) c -> p c, q c"},
        {"op": "rearrange", "keys": "b", "layout": "x y -> y x"},
        {"op": "resize", "keys": "c", "layout": "h w", "axes": {"h": 4, "w": 4}, "mode": "bilinear"},
        {"op": "cast", "keys": "d", "dtype": "BF16"},
    ]
    plan = make_plan(load_recipe({"ckptfix": 1, "rules": rules}), have.manifest, Manifest({}))
    plan.raise_for_errors()
    work = work_of({key: row.expr for key, row in plan.rows.items()}, have.tensors)
    assert work.to_json() == {"copied": 64 * 1024 * 4, "gathered": 64 * 8 * 4, "cast": 10, "computed": 64}
