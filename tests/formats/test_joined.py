"""Boxes of a tensor, joined: any cut gives the bytes of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats import Reader, Storage, TensorRef
from ckptfix.formats.base import Joined, Piece, contiguous_stride
from ckptfix.formats.distributed.boxes import Box, check_cover
from ckptfix.tensors import DType, Shape, TensorSpec
from tests.clock import within

Cut = tuple[tuple[int, ...], Shape]


@st.composite
def _cuts(draw: st.DrawFn) -> tuple[Shape, list[Cut]]:
    """A shape, and boxes that halving at random places makes of it."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    boxes: list[Cut] = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 8))):
        offsets, extents = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        at = draw(st.integers(0, extents[axis]))
        for start, size in ((0, at), (at, extents[axis] - at)):
            if size:
                moved = tuple(place + start * (dim == axis) for dim, place in enumerate(offsets))
                boxes.append((moved, tuple(size if dim == axis else extent for dim, extent in enumerate(extents))))
    return shape, draw(st.permutations(boxes))


def _piece(whole: np.ndarray, offsets: tuple[int, ...], shape: Shape) -> Piece:
    part = whole[tuple(slice(at, at + size) for at, size in zip(offsets, shape, strict=True))]
    # Every other piece is stored the other way round, as a transposed tensor is.
    order = "F" if sum(offsets) % 2 else "C"
    stride = tuple(step // 4 for step in np.asarray(part, order=order).strides)
    stride = contiguous_stride(shape) if part.size == 0 else stride
    return Piece(offsets, TensorRef(TensorSpec(shape, DType.I32), Storage.holding(part.tobytes(order)), 0, stride))


@given(_cuts())
def test_any_cut_is_put_together_again(cut: tuple[Shape, list[Cut]]) -> None:
    shape, boxes = cut
    check_cover(shape, [Box(*box) for box in boxes])
    whole = np.arange(np.prod(shape), dtype="<i4").reshape(shape)
    ref = TensorRef(
        TensorSpec(shape, DType.I32),
        Joined(tuple(_piece(whole, *box) for box in boxes)),
        0,
        contiguous_stride(shape),
    )
    with Reader() as reader:
        assert reader.read(ref) == whole.tobytes()


@given(_cuts(), st.data())
def test_what_covers_nothing_or_too_much_is_refused(cut: tuple[Shape, list[Cut]], data: st.DataObject) -> None:
    shape, boxes = cut
    place = data.draw(st.integers(0, len(boxes) - 1))
    with pytest.raises(MalformedFile):
        check_cover(shape, [Box(*box) for number, box in enumerate(boxes) if number != place])
    with pytest.raises(MalformedFile):
        check_cover(shape, [Box(*box) for box in [*boxes, boxes[place]]])


def test_boxes_of_one_size_that_meet_are_found() -> None:
    with pytest.raises(MalformedFile, match="same elements"):
        check_cover((4, 2), [Box((0, 0), (2, 2)), Box((1, 0), (2, 2))])
    with pytest.raises(MalformedFile, match="leaves its tensor"):
        check_cover((4,), [Box((2,), (4,))])


def test_boxes_that_lie_crosswise_cost_no_more_than_a_second() -> None:
    size = 2000
    columns = [Box((0, at), (1 + at % 2, 1)) for at in range(size)] + [
        Box((1 + at % 2, at), (size - 1 - at % 2, 1)) for at in range(size)
    ]
    stairs = [Box((at, 0), (1, at + 1)) for at in range(size)] + [
        Box((0, at + 1), (at + 1, 1)) for at in range(size - 1)
    ]
    with within(1):
        check_cover((size, size), columns)
        with pytest.raises(LimitExceeded, match="in one another's way"):
            check_cover((size, size), stairs)


def test_columns_of_a_wide_tensor_are_read_in_steps() -> None:
    whole = np.arange(3_000_000, dtype="<i4").reshape(3000, 1000)
    pieces = tuple(_piece(whole, (0, at), (3000, 250)) for at in range(0, 1000, 250))
    ref = TensorRef(TensorSpec(whole.shape, DType.I32), Joined(pieces), 0, contiguous_stride(whole.shape))
    with Reader() as reader:
        chunks = list(reader.chunks(ref))
    assert max(map(len, chunks)) <= 1 << 20
    assert b"".join(chunks) == whole.tobytes()
